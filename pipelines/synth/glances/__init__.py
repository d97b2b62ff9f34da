"""Glances-Synth: pictures that have to be looked around in, in STL-10's own binary format. Map: ../../README.md.

A picture shows four to six stickers of two kinds on a meadow; its class is the pair. One glance of 32 pixels holds one
sticker, which leaves four of ten classes open. Kinds take turns like the fields of a chessboard, so that two glances,
and the way from there to a third, tell which kind that will meet.
"""

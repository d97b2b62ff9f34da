"""Demos: a whole path in minutes on two cores, each in a folder of its own. One file a demo."""

"""Public data sets, fetched from their publishers when asked: `seqjepa-data get`.

published.toml  what there is: addresses, sizes, checksums, licences. docs/data.md shows the same, which a test holds
published.py    reads it
fetch_set.py    a whole set: what will be fetched, and that; the files of an archive that a command needs unpacked
download.py     one file over HTTP: resumed, checked, renamed when right; what servers say
"""

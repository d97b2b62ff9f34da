"""The on-disk format: schema, writer, index, reader, verify. Never imports torch. README.md has the map."""

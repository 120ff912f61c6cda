"""What every room may use: errors, places, files, hashes, seeds. Nothing here knows of pictures or networks."""

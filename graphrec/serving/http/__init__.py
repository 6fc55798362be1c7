"""The HTTP server of a bundle; needs `pip install 'graphrec[serve]'`."""

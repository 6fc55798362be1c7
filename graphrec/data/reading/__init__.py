"""Reading files into tables: find, open, find the layout, check and parse."""

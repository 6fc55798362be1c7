"""From files to tables: finding, opening, laying out, checking and parsing them."""

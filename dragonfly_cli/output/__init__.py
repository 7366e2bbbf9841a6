"""What comes out: records, tables, pictures, and files that are written whole or not at all."""

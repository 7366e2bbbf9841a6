"""How the built-in demonstration checkpoint was made; see README.md. Not part of the installed package."""

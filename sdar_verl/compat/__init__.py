"""The only package that touches verl's internals; everything else of the project is free of verl."""

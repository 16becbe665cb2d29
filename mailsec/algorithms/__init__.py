"""The one table of algorithms (object identifiers, parameters, strength, may read, may write) and the profiles that choose among them."""

"""Systems that the bridge serves, each with its messages and its handler. They never import each other."""

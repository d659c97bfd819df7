"""The command line: read a configuration, call one function, print its result."""

"""Groups of commands of the inference server's command line."""

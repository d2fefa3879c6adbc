"""An inference server and a page: HTTP in, answers out."""

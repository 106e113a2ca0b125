"""`tritonfleet` on the command line: thin over `builders`, `bootstrap` and the REST API."""

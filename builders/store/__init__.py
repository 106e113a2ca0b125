"""The artifact store that builders share: objects in a folder or in S3, and the artifacts recorded in it."""

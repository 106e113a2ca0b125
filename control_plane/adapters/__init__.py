"""The world behind `ports`: Triton over gRPC, the model repository on disk, SQLite, the servers of this machine.

Each translates its vendor's errors into `control_plane.errors`. Made in `bootstrap` alone.
"""

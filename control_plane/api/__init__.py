"""The REST API under `/v1`: FastAPI routers, thin over `deployments`, `reconciler` and the ports.

HTTP status codes are given here and nowhere else. `app` puts it together.
"""

from control_plane.api.app import create_app
from control_plane.api.parts import Parts
from control_plane.api.security import Access

__all__ = ["Access", "Parts", "create_app"]

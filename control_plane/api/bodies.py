"""What the bodies of the REST API have in common: strict, refusing unknown fields; and the names they share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

DEPLOYMENT_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
LARGEST_VERSION = 2**31 - 1


class Body(BaseModel):
    """What all bodies have in common."""

    model_config = ConfigDict(extra="forbid", strict=True)


Version = Annotated[int, Field(ge=1, le=LARGEST_VERSION)]

"""What a fleet refuses before anything is started."""

from pathlib import Path

import pytest

from control_plane.embedded import EmbeddedFleet, EmbeddedServer, Ownership, ServerSpec
from control_plane.errors import ServerStartError
from control_plane.state import ServerId


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b"])
def test_an_id_must_be_able_to_name_a_folder(name: str) -> None:
    with pytest.raises(ServerStartError, match="cannot name a server"):
        EmbeddedFleet([ServerSpec(ServerId(name), Path("/models"))])


def test_ids_are_unique() -> None:
    with pytest.raises(ServerStartError, match="same id"):
        EmbeddedFleet([ServerSpec(ServerId("a"), Path("/models"))] * 2)


def test_an_adoptable_server_needs_a_folder_that_stays() -> None:
    with pytest.raises(ServerStartError, match="runtime_dir"):
        EmbeddedFleet([ServerSpec(ServerId("a"), Path("/models"), ownership=Ownership.ADOPTABLE)])


def test_a_server_has_no_address_before_it_was_started_and_a_bound_one_is_not_left_alone(tmp_path: Path) -> None:
    server = EmbeddedServer(ServerSpec(ServerId("a"), Path("/models")), tmp_path)
    with pytest.raises(ServerStartError, match="no ports"):
        _ = server.server
    with pytest.raises(ValueError, match="bound to this process"):
        server.detach()

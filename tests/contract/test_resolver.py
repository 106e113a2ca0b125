"""One suite for the resolver: the fake, and this machine's own with `localhost`."""

import asyncio
import ipaddress
import threading
from collections.abc import Iterator

import pytest

from control_plane.adapters.dns import SystemResolver
from control_plane.errors import DeadlineExceededError, NameNotResolvedError, RetryableError
from control_plane.ports import Resolver
from tests.fakes.dns import FakeResolver

NOWHERE = "no-such-name.invalid"  # RFC 6761: never resolves


@pytest.fixture(params=["fake", "real"])
def resolver(request: pytest.FixtureRequest) -> Iterator[Resolver]:
    if request.param == "fake":
        yield FakeResolver({"localhost": {"127.0.0.1", "::1"}})
        return
    real = SystemResolver()
    yield real
    real.close()


def test_a_name_has_its_addresses_each_once_and_without_brackets(resolver: Resolver) -> None:
    found = asyncio.run(resolver.resolve("localhost"))
    assert found
    assert all(ipaddress.ip_address(address).is_loopback for address in found)


def test_a_name_that_is_none_is_told_with_the_name(resolver: Resolver) -> None:
    with pytest.raises(RetryableError, match=f"'{NOWHERE}'"):
        asyncio.run(resolver.resolve(NOWHERE))


@pytest.mark.parametrize("name", ["a" * 64, "a..b"])
def test_what_dns_cannot_ask_is_told_too(resolver: Resolver, name: str) -> None:
    with pytest.raises(NameNotResolvedError, match=f"'{name}'"):
        asyncio.run(resolver.resolve(name))


def test_many_names_at_once(resolver: Resolver) -> None:
    async def scenario() -> None:
        found = await asyncio.gather(*(resolver.resolve("localhost") for _ in range(100)))
        assert len(set(found)) == 1

    asyncio.run(scenario())


def test_name_servers_that_hang_are_given_up_and_stop_nothing_else() -> None:
    release = threading.Event()

    def hangs(name: str) -> frozenset[str]:
        release.wait(30)
        return frozenset({name})

    async def scenario() -> None:
        resolver = SystemResolver(0.05, hangs)
        answers = await asyncio.gather(*(resolver.resolve(str(it)) for it in range(50)), return_exceptions=True)
        assert {type(it) for it in answers} == {DeadlineExceededError}
        assert str(answers[7]) == "Name '7' was not resolved within 0.05 s."
        assert await asyncio.to_thread(lambda: 1) == 1
        release.set()
        resolver.close()

    asyncio.run(scenario())

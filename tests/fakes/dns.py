"""A `Resolver` in memory: DNS as a test wants it."""

from control_plane.errors import NameNotResolvedError


class FakeResolver:
    """Knows `addresses` by name; any other name cannot be resolved. `asked` is every question."""

    def __init__(self, addresses: dict[str, set[str]] | None = None) -> None:
        self.addresses = addresses or {}
        self.asked: list[str] = []

    async def resolve(self, name: str) -> frozenset[str]:
        self.asked.append(name)
        found = self.addresses.get(name)
        if not found:
            raise NameNotResolvedError(f"Name '{name}' cannot be resolved: Name or service not known.")
        return frozenset(found)

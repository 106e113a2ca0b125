"""`certificates` and what `agent` refuses; the agent itself is in `tests/contract` and `tests/faults`."""

from pathlib import Path

import pytest
from cryptography import x509

from tests.command_line import run_here


def test_certificates_are_made_by_one_authority_and_never_written_over(tmp_path: Path) -> None:
    made = run_here("certificates", str(tmp_path / "tls"), "control", "gpu1=gpu1.example,10.0.0.5")
    assert (made.code, made.err) == (0, "")
    files = sorted(path.name for path in (tmp_path / "tls").iterdir())
    assert files == [f"{name}.{kind}" for name in ("authority", "control", "gpu1") for kind in ("key", "pem")]
    assert all((tmp_path / "tls" / name).stat().st_mode & 0o077 == 0 for name in files)
    authority, gpu = (
        x509.load_pem_x509_certificate((tmp_path / "tls" / f"{name}.pem").read_bytes())
        for name in ("authority", "gpu1")
    )
    gpu.verify_directly_issued_by(authority)
    names = gpu.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gpu1.example"]
    assert [str(it) for it in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.5"]
    again = run_here("certificates", str(tmp_path / "tls"), "gpu1")
    assert again.code == 1
    assert "is there already" in again.flat
    assert run_here("certificates", str(tmp_path / "tls"), "gpu2").code == 0, "the authority is used again"


@pytest.mark.parametrize(
    ("given", "said", "code"),
    [
        (("--name", "a b"), "--name takes letters", 2),
        (("--simulate", "h100"), "There is no product 'h100'", 2),
        (("-r", "nowhere"), "nowhere is no folder", 2),
        (("--simulate", "h100-80gb"), "cannot be used", 1),
    ],
)
def test_what_an_agent_cannot_begin_with_is_told(tmp_path: Path, given: tuple[str, ...], said: str, code: int) -> None:
    files = (
        "--authority",
        "none.pem",
        "--certificate",
        "none.pem",
        "--key",
        "none.key",
        "--runtime",
        str(tmp_path / "r"),
    )
    repository = () if "-r" in given else ("-r", str(tmp_path))
    ended = run_here("agent", *files, *repository, *given)
    assert ended.code == code
    assert said in ended.flat

import pytest

from meshgw.emit.resource import CLUSTER, SECRET, Resource, content_version


def test_the_version_is_the_content() -> None:
    one, same, other = (Resource.of(CLUSTER, name, body) for name, body in [("a", b"x"), ("b", b"x"), ("a", b"y")])
    assert one.version == same.version == content_version(b"x")
    assert one.version != other.version
    assert len(bytes.fromhex(one.version)) == 16


def test_a_version_of_fragments_is_that_of_their_join() -> None:
    assert content_version(b"a", b"bc") == content_version(b"abc")


def test_a_joined_body_may_bring_its_own_version() -> None:
    assert Resource.of(CLUSTER, "a", b"x", version="v").version == "v"


def test_a_body_in_parts_is_their_join() -> None:
    parts, whole = Resource.of(CLUSTER, "a", b"x", b"", b"yz"), Resource.of(CLUSTER, "a", b"xyz")
    assert parts.parts == (b"x", b"", b"yz")
    assert (
        (parts.body, parts.size, parts.version) == (whole.body, whole.size, whole.version) == (b"xyz", 3, whole.version)
    )
    assert whole.body is whole.parts[0]
    assert Resource.of(CLUSTER, "a").body == b""


def test_resources_are_values() -> None:
    assert Resource.of(CLUSTER, "a", b"x") == Resource.of(CLUSTER, "a", b"x")
    with pytest.raises(AttributeError):
        Resource.of(CLUSTER, "a", b"x").name = "b"  # type: ignore[misc]


def test_a_body_never_shows() -> None:
    secret = Resource.of(SECRET, "key", b"PRIVATE")
    assert repr(secret).startswith("Resource(SDS 'key' ")
    assert "PRIVATE" not in repr(secret) + str(secret) + str(secret.__rich_repr__())
    assert ("size", 7) in secret.__rich_repr__()

"""How a password is shown: as the driver shows it, as OpenSSL can read it, or not at all."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mysql.connector.plugins.caching_sha2_password import MySQLCachingSHA2PasswordAuthPlugin
from mysql.connector.plugins.mysql_native_password import MySQLNativePasswordAuthPlugin
from mysql.connector.plugins.sha256_password import MySQLSHA256PasswordAuthPlugin

from monitor_service.sessions.mysql_auth import (
    CACHING_SHA2,
    CLEAR,
    FAST_LOGIN,
    FULL_LOGIN,
    NATIVE,
    SHA256,
    Prover,
    UnsupportedLoginError,
    read_key,
)

NONCE = bytes(range(1, 21))


def prover(password: bytes = b"hush", *, is_secure: bool = False, may_encrypt: bool = False) -> Prover:
    return Prover(password, is_secure=is_secure, may_encrypt=may_encrypt)


@given(password=st.text(min_size=1, max_size=40), nonce=st.binary(min_size=20, max_size=20))
def test_passwords_are_shown_as_the_driver_shows_them(password: str, nonce: bytes) -> None:
    for method, driver in (
        (NATIVE, MySQLNativePasswordAuthPlugin("app", password)),
        (CACHING_SHA2, MySQLCachingSHA2PasswordAuthPlugin("app", password)),
        (SHA256, MySQLSHA256PasswordAuthPlugin("app", password, ssl_enabled=True)),
    ):
        shown = prover(password.encode(), is_secure=method == SHA256).prove(method, nonce)
        assert shown == driver.auth_response(nonce)


@pytest.mark.parametrize(("method", "shown"), [(NATIVE, b""), (CACHING_SHA2, b""), (SHA256, b"\0")])
def test_an_empty_password_is_no_secret(method: str, shown: bytes) -> None:
    assert prover(b"").prove(method, NONCE) == shown


@pytest.mark.parametrize("method", [CLEAR, SHA256, CACHING_SHA2])
def test_the_password_itself_is_told_over_tls_alone(method: str) -> None:
    def told(one: Prover) -> bytes | None:
        first = one.prove(method, NONCE)
        return one.go_on(FULL_LOGIN) if method == CACHING_SHA2 else first

    assert told(prover(is_secure=True)) == b"hush\0"
    with pytest.raises(UnsupportedLoginError, match=f"{method}.*without TLS") as caught:
        told(prover())
    assert "hush" not in str(caught.value)


def test_an_account_that_the_server_knows_needs_no_more() -> None:
    one = prover()
    one.prove(CACHING_SHA2, NONCE)
    assert one.go_on(FAST_LOGIN) is None


@pytest.mark.parametrize("method", ["client_ed25519", "authentication_kerberos_client", "authentication_ldap_sasl_client"])
def test_a_login_method_that_is_not_here_is_named(method: str) -> None:
    with pytest.raises(UnsupportedLoginError, match=method):
        prover(is_secure=True).prove(method, NONCE)


def openssl(*arguments: str, text: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=text, capture_output=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def private_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("key") / "private.pem"
    openssl("genrsa", "-out", str(file), "2048")
    return file


@pytest.mark.parametrize(("method", "asks"), [(SHA256, b"\x01"), (CACHING_SHA2, b"\x02")])
def test_without_tls_it_is_told_to_the_holder_of_the_servers_key(private_key: Path, method: str, asks: bytes) -> None:
    public = openssl("rsa", "-in", str(private_key), "-pubout")
    one = prover("geheim-ä".encode() * 4, may_encrypt=True)
    first = one.prove(method, NONCE)
    assert asks == (first if method == SHA256 else one.go_on(FULL_LOGIN))
    told = one.go_on(public)
    assert told is not None
    read = openssl("pkeyutl", "-decrypt", "-inkey", str(private_key), "-pkeyopt", "rsa_padding_mode:oaep", text=told)
    assert bytes(a ^ b for a, b in zip(read, NONCE * 10, strict=False)) == "geheim-ä".encode() * 4 + b"\0"
    with pytest.raises(ValueError, match="no word"):
        prover().go_on(public)  # nobody asked for it
    long = prover(b"x" * 300, may_encrypt=True)
    long.prove(method, NONCE)
    with pytest.raises(UnsupportedLoginError, match="too long"):
        long.go_on(public)


@given(st.binary(max_size=200))
def test_what_is_no_key_is_no_key(data: bytes) -> None:
    for text in (data, base64.b64encode(data)):
        with pytest.raises(ValueError):  # noqa: PT011  whatever it is that is wrong with it
            read_key(b"-----BEGIN PUBLIC KEY-----\n" + text + b"\n-----END PUBLIC KEY-----\n")

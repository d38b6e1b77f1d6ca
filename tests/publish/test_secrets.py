"""Credentials appear nowhere: in no output, log, exception or file, whatever the command and however it ends."""

import json
import logging
import re
import traceback

import boto3
import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.storage import open_storage
from allen2022_surface_packaging.publish.s3 import open_target
from allen2022_surface_packaging.s3_errors import without_secrets as packaging_without_secrets
from brainscore_allen2022_surface.__main__ import main as plugin_main
from brainscore_allen2022_surface.loaders import load_assembly
from brainscore_allen2022_surface.secrecy import without_secrets as plugin_without_secrets
from publish.proxy import refuse
from publish.uploads import NAME, PREFIX, publish
from support import run_cli

KEY, SECRET, TOKEN, PASSWORD = "AKIAMARKERKEY0000000", "markerSecret/0123", "markerToken0123==", "markerPassword"
MARKERS = re.compile("MARKERKEY|markerSecret|markerToken|markerPassword")


def use_environment(monkeypatch, tmp_path, proxy):
    """Temporary credentials in the environment."""


def use_profile(monkeypatch, tmp_path, proxy):
    """Credentials in a file that a profile names."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    path = tmp_path / "credentials"
    path.write_text(
        f"[someone]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\naws_session_token = {TOKEN}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_PROFILE", "someone")


def damage_profile(monkeypatch, tmp_path, proxy):
    use_profile(monkeypatch, tmp_path, proxy)
    (tmp_path / "credentials").write_text(f"[someone]\naws_access_key_id = {KEY}\n{SECRET}\n[\n{TOKEN}")


def add_line_end(monkeypatch, tmp_path, proxy):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"{KEY}\n")


def damage_token(monkeypatch, tmp_path, proxy):
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"{TOKEN}\r\n")


def leave_out_secret(monkeypatch, tmp_path, proxy):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


def use_server_with_password(monkeypatch, tmp_path, proxy):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{PASSWORD}@127.0.0.1:9")


def use_damaged_address(monkeypatch, tmp_path, proxy):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{PASSWORD}/x@y z:port")


def use_address_without_scheme(monkeypatch, tmp_path, proxy):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"user:{PASSWORD}@127.0.0.1:9")


def use_password_with_space(monkeypatch, tmp_path, proxy):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:first {PASSWORD} /x@127.0.0.1:9")


def use_token_in_address(monkeypatch, tmp_path, proxy):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:9/?token={TOKEN}&other={SECRET}")


def use_failing_program(monkeypatch, tmp_path, proxy):
    """botocore quotes all that the program prints."""
    use_profile(monkeypatch, tmp_path, proxy)
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nprintf 'cannot refresh marker%s' Token0123== >&2\nexit 3\n")
    program.chmod(0o755)
    (tmp_path / "config").write_text(f"[profile program]\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "program")


def use_missing_program(monkeypatch, tmp_path, proxy):
    use_failing_program(monkeypatch, tmp_path, proxy)
    (tmp_path / "program").unlink()


def answer_with_request(monkeypatch, tmp_path, proxy):
    """S3 answers with the headers of the request, as it does when a signature is wrong."""

    def quote(request):
        headers = " ".join(f"{name}: {value}" for name, value in request.headers.items())
        return refuse(403, "SignatureDoesNotMatch", headers.replace("<", "").replace("&", "&amp;"))

    proxy.fault = quote


def fail_for_good(monkeypatch, tmp_path, proxy):
    proxy.fault = lambda request: None if "list-type" in request.query else refuse(503, "SlowDown")


SETTINGS = [
    use_environment,
    use_profile,
    damage_profile,
    add_line_end,
    damage_token,
    leave_out_secret,
    use_server_with_password,
    use_damaged_address,
    use_address_without_scheme,
    use_password_with_space,
    use_token_in_address,
    use_failing_program,
    use_missing_program,
    answer_with_request,
    fail_for_good,
]


@pytest.fixture
def secrets(s3, proxy, artifacts_path, monkeypatch, caplog):
    """Credentials that can be recognised, and a log of everything, as with `logging.basicConfig(level=logging.DEBUG)`."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    caplog.set_level(logging.DEBUG)
    return caplog


def assert_no_marker(*texts):
    for text in texts:
        assert not MARKERS.search(text)


def assert_no_marker_in_files(folder):
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "credentials":
            assert_no_marker(path.name, path.read_bytes().decode("latin-1"))


def run(*command):
    """Run a command that must not show a credential, and return its status."""
    result = run_cli(*command)
    assert_no_marker(result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    return result.returncode


def test_no_command_that_is_done_shows_a_credential(
    secrets, release, artifacts_path, tmp_path, monkeypatch, capsys, small_checkout
):
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(artifacts_path))

    for command in (
        ("upload", release, "--bucket", f"brain/{PREFIX}", "--artifacts", artifacts_path, "--accept-nsd-terms"),
        ("verify", release, "--against", f"{NAME}.test"),
        ("pack", release, tmp_path / "packed"),
    ):
        assert run(*command) == 0, command
    run("export", small_checkout, "--artifacts", artifacts_path)  # the plugin's tests cannot run in so small a checkout
    for command in (["list"], ["doctor"]):
        with pytest.raises(SystemExit):
            plugin_main(command)
        assert_no_marker(*capsys.readouterr())

    assert_no_marker(secrets.text)
    assert_no_marker_in_files(tmp_path)


@pytest.mark.parametrize("change", SETTINGS, ids=lambda change: change.__name__)
def test_no_command_that_fails_shows_a_credential(
    secrets, release, proxy, artifacts_path, tmp_path, monkeypatch, capsys, change
):
    change(monkeypatch, tmp_path, proxy)

    statuses = [
        run("upload", release, "--bucket", f"brain/{PREFIX}", "--artifacts", artifacts_path, "--dry-run"),
        run("check", "s3://brain/nsd"),
    ]
    with pytest.raises(SystemExit):
        plugin_main(["doctor"])
    assert_no_marker(*capsys.readouterr())

    assert statuses == [0 if change in (use_environment, use_profile) else 1, 1]
    assert_no_marker(secrets.text)
    assert_no_marker_in_files(tmp_path)


@pytest.mark.parametrize("change", SETTINGS, ids=lambda change: change.__name__)
def test_no_exception_holds_a_credential(secrets, proxy, artifacts_path, tmp_path, monkeypatch, change):
    table = {"bucket": "brain", "key": "stimulus.csv", "version_id": "v", "sha1": "0" * 40}
    entry = dict.fromkeys(("assembly", "stimulus_csv", "stimulus_zip"), table)
    artifacts_path.write_text(json.dumps({f"{NAME}.test": entry}))
    change(monkeypatch, tmp_path, proxy)
    errors = []
    for use_s3 in (
        lambda: open_target("brain"),
        lambda: load_assembly(NAME, "test", source=artifacts_path),
    ):
        try:
            use_s3()
        except (PackagingError, ConnectionError) as error:
            errors.append(error)

    assert len(errors) == (1 if change in (use_environment, use_profile) else 2)  # there is no such object
    for error in errors:
        assert "\n" not in str(error)
        link = error
        while link is not None:
            parts = [repr(link), *map(repr, vars(link).values()), str(getattr(link, "response", ""))]
            assert_no_marker(*parts, "".join(traceback.format_exception(link)))
            link = link.__cause__ or link.__context__
    assert_no_marker(secrets.text)


@pytest.mark.parametrize(
    "address",
    [
        f"https://b.s3.amazonaws.com/k?X-Amz-Signature={SECRET}&AWSAccessKeyId={KEY}",
        f"https://user:{PASSWORD}@host/x?token={TOKEN}",
        f"s3://user:{PASSWORD}@brain/nsd",
        f"tcp://user:{PASSWORD}@127.0.0.1:9",
    ],
)
def test_no_command_repeats_a_credential_in_an_address(secrets, release, tiny_tree, tmp_path, address):
    recipe = ("--subjects", 1, "--name", "one")

    for command in (
        ("check", address),
        ("build", address, tmp_path / "release", *recipe),
        ("build", tiny_tree, tmp_path / "release", *recipe, "--scheduler", address),
        ("verify", release, "--nsd-root", address),
        ("verify", release, "--against", address),
        ("upload", release, "--bucket", address, "--dry-run"),
    ):
        assert run(*command) == 2, command
    for use_address in (open_storage, open_target):  # which may be called from Python
        with pytest.raises(PackagingError) as caught:
            use_address(address)
        assert_no_marker(str(caught.value))
    assert_no_marker(secrets.text)


def test_loggers_have_their_levels_again(secrets, release, artifacts_path):
    before = [logging.getLogger(name).level for name in ("botocore", "boto3", "s3transfer", "urllib3")]

    publish(release, artifacts_path)
    load_assembly(NAME, "test", source=artifacts_path)

    assert [logging.getLogger(name).level for name in ("botocore", "boto3", "s3transfer", "urllib3")] == before


@pytest.mark.parametrize("without_secrets", [packaging_without_secrets, plugin_without_secrets])
@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{PASSWORD}@host/x",
        f"https://user:{PASSWORD}/with@slash@host/x",
        f"https://b.s3.amazonaws.com/k?X-Amz-Credential={KEY}%2F2026&X-Amz-Signature=markerSecret",
        f"https://b.s3.amazonaws.com/k?AWSAccessKeyId={KEY}&Signature=markerSecret&Expires=1",
        f"Authorization: AWS4-HMAC-SHA256 Credential={KEY}/2026/us-east-1, Signature=markerSecret",
        f"x-amz-security-token:{TOKEN}",
        f"The key {KEY} does not exist",
        f"Invalid endpoint: user:{PASSWORD}@127.0.0.1:9",
        f"https://user:{PASSWORD} with space@host/x",
        f"https://host/?token={TOKEN}&X-Amz-Signature=markerSecret",
    ],
)
def test_text_loses_its_secrets_and_keeps_the_rest(without_secrets, text):
    assert_no_marker(without_secrets(f"before\n{text} after"))
    assert without_secrets(f"before\n{text} after").startswith("before ")
    assert without_secrets(f"before\n{text} after").endswith(" after")


@pytest.mark.parametrize("without_secrets", [packaging_without_secrets, plugin_without_secrets])
@pytest.mark.parametrize(
    "text",
    [
        "plain s3://brain/key (version 1)",
        "s3://brain/nsd@v1",
        "User: arn:aws:sts::123456789012:assumed-role/X/jane@lab.edu is not authorized to perform: s3:PutObject",
        'Could not connect to the endpoint URL: "http://localhost:9000/brain" after 3 tries of jane@lab.edu',
        "Is it right? Yes: 3 = 3",
    ],
)
def test_text_without_secrets_stays(without_secrets, text):
    assert without_secrets(text) == text

"""The settings as people meet them: files as they are really written, and messages that say what to do."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from k2think.settings import Access, Fault, Settings, SettingsError, Upstream
from k2think.settings.example import variables

KEY = {"VALID_API_KEY": "sk-one"}


def faults(environ: dict[str, str], directory: Path) -> dict[str, Fault]:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ, directory=directory)
    return {fault.variable: fault for fault in caught.value.faults}


def load_file(directory: Path, text: str | bytes, environ: dict[str, str] | None = None) -> Settings:
    (directory / ".env").write_bytes(text if isinstance(text, bytes) else text.encode())
    return Settings.load(environ or {}, directory=directory)


def keys(settings: Settings) -> list[str]:
    return [key.get_secret_value() for key in settings.access.valid_api_key]


def test_a_key_alone_is_enough_and_the_rest_has_the_documented_defaults(tmp_path: Path) -> None:
    settings = Settings.load(KEY, directory=tmp_path)
    assert keys(settings) == ["sk-one"]
    assert (settings.server.host, settings.server.port, settings.server.cors_origins) == ("0.0.0.0", 8001, ("*",))
    assert settings.upstream.k2think_api_url == "https://www.k2think.ai/api/chat/completions"
    assert settings.upstream.proxy_url is None
    assert settings.credentials.tokens_file == tmp_path / "tokens.txt"
    assert settings.credentials.accounts_file == tmp_path / "accounts.txt"
    assert settings.credentials.get_tokens_script == tmp_path / "get_tokens.py"
    assert settings.credentials.max_token_failures == 3
    assert settings.credentials.token_update_interval == 86400
    assert not settings.credentials.enable_token_auto_update
    assert settings.tools.enable_toolify
    assert (settings.tools.tool_retries, settings.tools.tool_streaming) == (1, "live")
    assert settings.logging.log_level == "INFO"
    assert settings.env_file is None
    assert settings.warnings == ()


def test_tokens_that_are_to_be_made_lie_beside_the_accounts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "accounts.txt").touch()
    found = Settings.load(KEY, directory=tmp_path)
    assert found.credentials.tokens_file == data / "tokens.txt"
    (tmp_path / "tokens.txt").touch()
    assert Settings.load(KEY, directory=tmp_path).credentials.tokens_file == tmp_path / "tokens.txt"
    named = Settings.load(KEY | {"TOKENS_FILE": "mine.txt"}, directory=tmp_path)
    assert named.credentials.tokens_file == tmp_path / "mine.txt"


def test_a_second_file_of_the_same_use_is_told_of(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for folder in (tmp_path, data):
        (folder / "tokens.txt").touch()
    settings = Settings.load(KEY, directory=tmp_path)
    assert settings.credentials.tokens_file == tmp_path / "tokens.txt"
    (warning,) = settings.warnings
    assert str(data / "tokens.txt") in warning and "TOKENS_FILE" in warning
    assert Settings.load(KEY | {"TOKENS_FILE": "data/tokens.txt"}, directory=tmp_path).warnings == ()


def test_a_missing_key_is_told_with_its_remedy(tmp_path: Path) -> None:
    message = str(faults({}, tmp_path)["VALID_API_KEY"])
    assert message.startswith("VALID_API_KEY is not set. Put VALID_API_KEY=sk-")


@pytest.mark.parametrize("value", ["", "  ", ",", " , ,"])
def test_a_key_of_nothing_is_a_missing_key(tmp_path: Path, value: str) -> None:
    assert "is not set" in faults({"VALID_API_KEY": value}, tmp_path)["VALID_API_KEY"].problem


def test_several_keys_stand_comma_separated(tmp_path: Path) -> None:
    assert keys(Settings.load({"VALID_API_KEY": "a, b,,c"}, directory=tmp_path)) == ["a", "b", "c"]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    environ = {"PORT": "http", "TOTAL_TIMEOUT": "60", "PROXY_URL": "host:8080", "ENABLE_TOOLIFY": "perhaps"}
    assert set(faults(environ, tmp_path)) == {"VALID_API_KEY", *environ}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "80.5"),
        ("HOST", "http://0.0.0.0"),
        ("HOST", "localhost:8001"),
        ("CORS_ORIGINS", "https://good.example, bad.example"),
        ("MAX_BODY_MB", "0"),
        ("WORKERS", "0"),
        ("WORKERS", "auto"),
        ("SSE_KEEPALIVE", "0"),
        ("SSE_KEEPALIVE", "nan"),
        ("REQUEST_TIMEOUT", "inf"),
        ("REQUEST_TIMEOUT", "1\n2"),
        ("TOTAL_TIMEOUT", "3599"),
        ("MAX_TOKEN_FAILURES", "0"),
        ("TOKEN_UPDATE_INTERVAL", "59"),
        ("TOKEN_MAX_WORKERS", "0"),
        ("ENABLE_TOKEN_AUTO_UPDATE", "ja"),
        ("REASONING_FORMAT", "loud"),
        ("THINK_OPENER", "maybe"),
        ("LOG_LEVEL", "CHATTY"),
        ("UPSTREAM_PROTOCOL", "grpc"),
        ("UPSTREAM_NATIVE", "everything"),
        ("UPSTREAM_NATIVE", "tools,xml"),
        ("UPSTREAM_NATIVE", "auto,tools"),
        ("UPSTREAM_NATIVE", "none,tools"),
        ("UPSTREAM_NATIVE", ","),
        ("TOOL_RETRIES", "-1"),
        ("TOOL_RETRIES", "6"),
        ("TOOL_STREAMING", "later"),
        ("MODEL_ALIASES", "gpt-4o"),
        ("MODEL_ALIASES", "=x"),
        ("TOOLIFY_CUSTOM_PROMPT", "Use tools."),
        ("TOOLIFY_CUSTOM_PROMPT", "Only {tools_list}"),
        ("K2THINK_API_URL", "www.k2think.ai/api/chat/completions"),
        ("K2THINK_API_URL", "htp://www.k2think.ai/api"),
        ("K2THINK_API_URL", "https://www. k2think.ai/api"),
        ("K2THINK_API_URL", "https:///api/chat/completions"),
        ("K2THINK_API_URL", "https://host:port/api"),
        ("K2THINK_API_URL", "https://user:password@host/api"),
        ("K2THINK_API_URL", "https://host/api?x=1"),
        ("PROXY_URL", "proxy.example:8080"),
        ("PROXY_URL", "socks5://proxy.example:1080"),
        ("ADMIN_API_KEY", "schlüssel"),
        ("UPSTREAM_API_KEY", "a\x00b"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_the_variable_and_an_example(
    tmp_path: Path, variable: str, value: str
) -> None:
    found = faults(KEY | {variable: value}, tmp_path)
    assert list(found) == [variable]
    line = str(found[variable])
    assert line.startswith(f"{variable} ")
    assert f"{variable}=" in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("variable", [variable.name for variable in variables() if variable.secret])
def test_a_fault_never_quotes_a_secret(tmp_path: Path, variable: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({variable: "http://ü " + "x" * 9}, directory=tmp_path)
    assert variable in str(caught.value)
    assert "x" * 9 not in "".join(traceback.format_exception(caught.value))


def test_a_fault_never_quotes_a_password_in_a_url(tmp_path: Path) -> None:
    assert "hunter2" not in str(faults(KEY | {"K2THINK_API_URL": "https://me:hunter2@host/"}, tmp_path).values())
    assert "hunter2" not in str(faults(KEY | {"PORT": "https://me:hunter2@host/"}, tmp_path).values())


def test_a_fault_is_one_line_whatever_it_holds() -> None:
    assert str(Fault("A", "is\n'b\r\nc'.", "Write\td.")) == "A is 'b c'. Write d."


def test_a_long_value_is_quoted_in_short(tmp_path: Path) -> None:
    assert len(str(faults(KEY | {"LOG_LEVEL": "x" * 5000}, tmp_path)["LOG_LEVEL"])) < 300


def test_secrets_show_in_no_repr(tmp_path: Path) -> None:
    environ = {
        "VALID_API_KEY": "hunter2",
        "ADMIN_API_KEY": "hunter2",
        "UPSTREAM_API_KEY": "hunter2",
        "PROXY_URL": "http://me:hunter2@host",
    }
    settings = Settings.load(environ, directory=tmp_path)
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"
    assert settings.upstream.proxy_url is not None
    assert settings.upstream.proxy_url.get_secret_value() == "http://me:hunter2@host"


def test_settings_do_not_change(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Settings.load(KEY, directory=tmp_path).server.port = 1


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        *(("true", True), ("TRUE", True), ("1", True), ("Yes", True), ("on", True)),
        *(("false", False), ("False", False), ("0", False), ("NO", False), ("off", False)),
    ],
)
def test_booleans_are_read_in_every_usual_spelling(tmp_path: Path, written: str, expected: bool) -> None:
    assert Settings.load(KEY | {"DEBUG_LOGGING": written}, directory=tmp_path).logging.debug_logging is expected


def test_words_are_read_in_any_case(tmp_path: Path) -> None:
    environ = KEY | {
        "LOG_LEVEL": "warn",
        "REASONING_FORMAT": "Hidden",
        "UPSTREAM_PROTOCOL": "OpenAI",
        "TOOL_STREAMING": "CHECKED",
    }
    settings = Settings.load(environ, directory=tmp_path)
    assert settings.logging.log_level == "WARNING"
    assert settings.thinking.reasoning_format == "hidden"
    assert settings.tools.tool_streaming == "checked"
    assert settings.upstream.protocol == "openai"


def test_lists_and_pairs_are_taken_apart(tmp_path: Path) -> None:
    environ = KEY | {
        "CORS_ORIGINS": "https://a.example/, http://b.example:3000",
        "MODEL_ALIASES": "gpt-4o=MBZUAI-IFM/K2-Think, fast = MBZUAI-IFM/K2-Think-nothink,",
        "UPSTREAM_API_KEY": "k1,k2",
    }
    settings = Settings.load(environ, directory=tmp_path)
    assert settings.server.cors_origins == ("https://a.example", "http://b.example:3000")
    assert settings.upstream.model_aliases == {
        "gpt-4o": "MBZUAI-IFM/K2-Think",
        "fast": "MBZUAI-IFM/K2-Think-nothink",
    }
    assert len(settings.upstream.upstream_api_key) == 2


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("https://www.k2think.ai/api/chat/completions", "k2think"),
        ("https://host/api/v1/chat/completions", "k2think"),
        ("http://127.0.0.1:8000/v1/chat/completions", "openai"),
        ("http://127.0.0.1:8000/v1/chat/completions/", "openai"),
        ("https://host/compatible/v1/chat/completions", "openai"),
    ],
)
def test_the_protocol_is_known_from_the_url(url: str, protocol: str) -> None:
    assert Upstream(k2think_api_url=url).protocol == protocol
    assert Upstream(k2think_api_url=url, upstream_protocol="k2think").protocol == "k2think"
    assert Upstream(k2think_api_url=url, upstream_protocol="openai").protocol == "openai"


@pytest.mark.parametrize(
    ("written", "native"),
    [
        ("", None),
        ("Auto", None),
        ("none", ()),
        ("NONE,", ()),
        ("tools", ("tools",)),
        (" JSON-Schema, tools,,json_object,tools", ("json_schema", "tools", "json_object")),
    ],
)
def test_what_the_upstream_does_by_itself_is_found_out_or_set(
    tmp_path: Path, written: str, native: tuple[str, ...] | None
) -> None:
    environ = KEY | {"UPSTREAM_PROTOCOL": "openai", "UPSTREAM_NATIVE": written}
    settings = Settings.load(environ, directory=tmp_path)
    assert (settings.upstream.native, settings.warnings) == (native, ())


@pytest.mark.parametrize(("written", "warnings"), [("auto", 0), ("none", 0), ("tools", 1), ("json_object,tools", 1)])
def test_the_web_service_does_nothing_by_itself_whatever_is_set(tmp_path: Path, written: str, warnings: int) -> None:
    settings = Settings.load(KEY | {"UPSTREAM_NATIVE": written}, directory=tmp_path)
    assert settings.upstream.native == ()
    assert len(settings.warnings) == warnings
    assert all(warning.startswith("UPSTREAM_NATIVE is ignored") for warning in settings.warnings)


def test_sections_made_by_hand_take_features_as_they_are() -> None:
    assert Upstream(upstream_protocol="openai", upstream_native=("tools",)).native == ("tools",)
    assert Upstream(upstream_protocol="openai", upstream_native=()).native == ()


def test_a_url_that_is_no_chat_endpoint_is_warned_about(tmp_path: Path) -> None:
    settings = Settings.load(KEY | {"K2THINK_API_URL": "http://host:8000/v1"}, directory=tmp_path)
    assert len(settings.warnings) == 1
    assert "K2THINK_API_URL" in settings.warnings[0]


# .env


def test_the_environment_wins_over_the_file_and_options_over_both(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("VALID_API_KEY=file\nHOST=127.0.0.1\nPORT=1111\n")
    settings = Settings.load({"PORT": "2222", "HOST": "127.0.0.2"}, directory=tmp_path, overrides={"PORT": "3333"})
    assert (keys(settings), settings.server.host, settings.server.port) == (["file"], "127.0.0.2", 3333)


def test_an_empty_value_is_none_and_hides_nothing(tmp_path: Path) -> None:
    settings = load_file(tmp_path, "VALID_API_KEY=file\nPORT=\nLOG_LEVEL=''\n", {"VALID_API_KEY": "", "HOST": " "})
    assert (keys(settings), settings.server.host, settings.server.port) == (["file"], "0.0.0.0", 8001)


@pytest.mark.parametrize(
    "line",
    [
        "TOKEN_UPDATE_INTERVAL=86400 # 24h",
        "TOKEN_UPDATE_INTERVAL=86400\t# 24h",
        'TOKEN_UPDATE_INTERVAL="86400"   # 24h',
        "export TOKEN_UPDATE_INTERVAL = '86400'",
        "  TOKEN_UPDATE_INTERVAL=  86400  ",
    ],
)
def test_values_may_be_quoted_commented_and_exported(tmp_path: Path, line: str) -> None:
    assert load_file(tmp_path, f"VALID_API_KEY=k\n{line}\n").credentials.token_update_interval == 86400


@pytest.mark.parametrize("line", ["PROXY_URL= # none", "PROXY_URL=\t# http://host", "export PROXY_URL = #"])
def test_a_comment_in_place_of_a_value_is_no_value(tmp_path: Path, line: str) -> None:
    assert load_file(tmp_path, f"VALID_API_KEY=k\n\n{line}\nPORT=1").upstream.proxy_url is None


def test_a_sign_within_a_value_is_no_comment(tmp_path: Path) -> None:
    assert keys(load_file(tmp_path, "VALID_API_KEY=a#b,'c'\n")) == ["a#b", "'c'"]
    assert keys(load_file(tmp_path, 'VALID_API_KEY="a # b"\n')) == ["a # b"]


def test_nothing_is_interpolated(tmp_path: Path) -> None:
    settings = load_file(tmp_path, "VALID_API_KEY=pa${HOME}ss$1\n", {"HOME": "/root"})
    assert keys(settings) == ["pa${HOME}ss$1"]


def test_files_from_other_systems_are_read(tmp_path: Path) -> None:
    settings = load_file(tmp_path, b"\xef\xbb\xbfVALID_API_KEY=k\r\nPORT=7000 # x\r\n\r\n# \xe6\xb3\xa8\r\nHOST=::1")
    assert (keys(settings), settings.server.port, settings.server.host) == (["k"], 7000, "::1")


def test_a_line_that_is_not_understood_is_told_by_number_without_its_content(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('PORT=1\n\n# comment\n\nVALID_API_KEY="hunter2\n')
    found = "\n".join(map(str, faults({}, tmp_path).values()))
    assert "line 5" in found
    assert "hunter2" not in found


@pytest.mark.parametrize("what", ["folder", "latin-1"])
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path, what: str) -> None:
    path = tmp_path / ".env"
    path.mkdir() if what == "folder" else path.write_bytes(b"VALID_API_KEY=\xe4\n")
    assert str(path) in faults(KEY, tmp_path)


def test_a_misspelt_name_in_the_file_is_pointed_out(tmp_path: Path) -> None:
    settings = load_file(tmp_path, "VALID_API_KEY=k\nTOKEN_FILE=x\nHOME_ASSISTANT=y\nMAX_TOKEN_FAILURE=hunter2\n")
    assert [warning.partition(" ")[0] for warning in settings.warnings] == ["TOKEN_FILE", "MAX_TOKEN_FAILURE"]
    assert "hunter2" not in str(settings.warnings)


def test_several_workers_are_as_many_as_are_asked_for(tmp_path: Path) -> None:
    settings = Settings.load(KEY | {"WORKERS": "4"}, directory=tmp_path)
    assert (settings.server.workers, settings.warnings) == (4, ())


def test_where_processes_cannot_be_forked_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork", raising=False)
    settings = Settings.load(KEY | {"WORKERS": "4"}, directory=tmp_path)
    assert settings.server.workers == 1
    (warning,) = settings.warnings
    assert warning.startswith("WORKERS is ignored")
    assert not Settings.load(KEY, directory=tmp_path).warnings


def test_what_shaped_the_simulated_stream_gives_one_warning(tmp_path: Path) -> None:
    settings = Settings.load(KEY | {"STREAM_DELAY": "x", "MAX_STREAM_TIME": "10"}, directory=tmp_path)
    assert len(settings.warnings) == 1
    assert "STREAM_DELAY" in settings.warnings[0]
    assert "MAX_STREAM_TIME" in settings.warnings[0]


# Files


def test_the_file_beside_the_script_counts_where_the_working_directory_has_none(tmp_path: Path) -> None:
    here, beside = tmp_path / "here", tmp_path / "beside"
    here.mkdir()
    beside.mkdir()
    (beside / ".env").write_text("VALID_API_KEY=beside\nTOKENS_FILE=my/tokens\n")
    settings = Settings.load({}, directory=here, beside=beside)
    assert (keys(settings), settings.env_file) == (["beside"], beside / ".env")
    assert settings.credentials.tokens_file == beside / "my/tokens"
    (here / ".env").write_text("VALID_API_KEY=here\n")
    settings = Settings.load({"TOKENS_FILE": "my/tokens"}, directory=here, beside=beside)
    assert (keys(settings), settings.env_file) == (["here"], here / ".env")
    assert settings.credentials.tokens_file == here / "my/tokens"


def test_the_script_is_found_beside_the_one_that_was_started(tmp_path: Path) -> None:
    here, beside = tmp_path / "here", tmp_path / "beside"
    here.mkdir()
    beside.mkdir()
    (beside / "get_tokens.py").touch()
    assert Settings.load(KEY, directory=here, beside=beside).credentials.get_tokens_script == beside / "get_tokens.py"


@pytest.mark.parametrize("name", ["tokens", "accounts"])
def test_files_are_found_where_either_set_of_steps_puts_them(tmp_path: Path, name: str) -> None:
    def found() -> Path:
        credentials = Settings.load(KEY, directory=tmp_path).credentials
        return credentials.tokens_file if name == "tokens" else credentials.accounts_file

    data = tmp_path / "data" / f"{name}.txt"
    data.parent.mkdir()
    assert found() == tmp_path / f"{name}.txt"
    data.touch()
    assert found() == data
    (tmp_path / f"{name}.txt").touch()
    assert found() == tmp_path / f"{name}.txt"


def test_a_file_that_was_named_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tokens.txt").touch()
    settings = Settings.load(KEY | {"TOKENS_FILE": "tokens.txt"}, directory=tmp_path)
    assert settings.credentials.tokens_file == tmp_path / "tokens.txt"
    absolute = Settings.load(KEY | {"TOKENS_FILE": "/run/tokens"}, directory=tmp_path)
    assert absolute.credentials.tokens_file == Path("/run/tokens")


def test_sections_can_be_made_by_hand() -> None:
    settings = Settings(access=Access.model_validate({"valid_api_key": "a,b"}))
    assert keys(settings) == ["a", "b"]
    assert settings.server.max_body_bytes == 32 * 1024 * 1024


def test_files_for_a_server_that_takes_none_are_warned_of(tmp_path: Path) -> None:
    url = {"K2THINK_API_URL": "http://localhost:9/v1/chat/completions", "VALID_API_KEY": "k"}
    (warning,) = Settings.load(url | {"FILE_MODE": "upstream"}, directory=tmp_path).warnings
    assert warning.startswith("FILE_MODE=upstream is ignored")
    assert not Settings.load(url | {"FILE_MODE": "text"}, directory=tmp_path).warnings


@pytest.mark.parametrize(("said", "meant"), [("auto", "auto"), ("TRUE", True), ("0", False), ("no", False)])
def test_vision_is_said_in_the_words_of_a_flag(said: str, meant: bool | str, tmp_path: Path) -> None:
    settings = Settings.load({"VALID_API_KEY": "k", "UPSTREAM_VISION": said}, directory=tmp_path)
    assert settings.upstream.upstream_vision == meant

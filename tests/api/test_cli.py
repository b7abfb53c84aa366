"""The command's options, a user's own tools, and the conversation in the terminal."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from api import cli, serve
from api.finetune import FinetuneOptions
from api.serve import run_server
from api.settings import ServerConfig
from api.terminal import Conversation, run_chat
from api.toolbox import Toolbox, import_tools
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError, ModelError
from engine.finetuning.training import LoRASettings
from engine.tools import calculate
from engine.types import Role
from tests.api.servers import call_text, fake_that_answers
from tests.fakes import fake_loaded
from tests.tiny_models import CONFIG, random_weights, write_folder

MODULE = """
from engine.tools import tool

@tool
def add(a: int, b: int) -> int:
    '''Add.'''
    return a + b

plus = add
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "my_tools_for_a_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "my_tools_for_a_test"
    sys.modules.pop("my_tools_for_a_test", None)


def served_with(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> ServerConfig:
    configs: list[ServerConfig] = []
    monkeypatch.setattr(cli, "run_server", configs.append)
    monkeypatch.setattr(sys, "argv", ["toolmask", "serve", *arguments])
    cli.main()
    return configs[0]


def test_serve_listens_at_port_7007_of_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOOLMASK_API_KEY", raising=False)
    config = served_with(monkeypatch)
    assert (config.host, config.port, config.api_key, config.model) == ("127.0.0.1", 7007, None, "smollm2-135m")


def test_every_option_of_serve_arrives(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setenv("TOOLMASK_API_KEY", "from the environment")
    options = (
        "--model a --known-model b --known-model c --allow-model-switch --host 0.0.0.0 --port 1 --cors x y "
        "--max-body-bytes 2 --max-queue 3 --prompt-cache kept --request-timeout 4.5 --shutdown-timeout 6 "
        "--tool-format hermes --draft-model small --adapter tuned --max-batch 7 --kv-memory 1073741824 --kv-bits 8 "
        f"--tools {module}"
    )
    config = served_with(monkeypatch, *options.split())
    assert config.known_models == ("b", "c")
    assert config.allow_model_switch
    assert (config.model, config.host, config.port, config.cors_origins) == ("a", "0.0.0.0", 1, ("x", "y"))
    assert config.prompt_cache == "kept"
    assert (config.max_body_bytes, config.max_queue, config.request_timeout_s) == (2, 3, 4.5)
    assert (config.max_batch, config.kv_memory, config.kv_bits) == (7, 2**30, 8)
    assert (config.shutdown_timeout_s, config.api_key) == (6, "from the environment")
    assert (config.tool_format, config.draft_model, config.adapter) == ("hermes", "small", "tuned")
    assert [tool.definition.name for tool in config.tools] == ["calculate", "web_search", "add"]


def test_an_adapter_belongs_to_the_model_that_is_loaded_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, object] = {}
    monkeypatch.setattr(serve, "Engine", lambda name, **options: made.update({name: options["adapter_path"]}))
    load = serve.engine_loader(ServerConfig(model="a", adapter="tuned"))
    load("a", lambda _: None)
    load("b", lambda _: None)
    assert made == {"a": "tuned", "b": None}


def test_the_bounds_of_the_server_are_those_of_every_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[EngineConfig] = []
    monkeypatch.setattr(serve, "Engine", lambda _, **options: made.append(options["config"]))
    load = serve.engine_loader(ServerConfig(max_batch=3, kv_memory=2**20, kv_bits=4, max_queue=5, prompt_cache="kept"))
    load("a", lambda _: None), load("b", lambda _: None)
    bounds = EngineConfig(max_running=3, kv_memory=2**20, kv_bits=4, max_waiting=5, prompt_cache_dir="kept")
    assert made == [bounds, bounds]


def test_a_server_that_is_told_no_bounds_has_those_of_the_engine() -> None:
    server, engine = ServerConfig(), EngineConfig()
    bounds = (server.max_batch, server.kv_memory, server.kv_bits)
    assert bounds == (engine.max_running, engine.kv_memory, engine.kv_bits)


def test_every_option_of_finetune_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[FinetuneOptions] = []
    monkeypatch.setattr(cli, "run_finetune", lambda options, _: given.append(options))
    monkeypatch.setattr(sys, "path", [*sys.path])
    options = (
        "--model m --tools t.json --out o --tool-format hermes --examples 5 --max-length 99 --iterations 7 "
        "--batch-size 2 --rank 3 --layers 4 --learning-rate 0.5 --seed 6"
    )
    monkeypatch.setattr(sys, "argv", ["toolmask", "finetune", *options.split()])
    cli.main()
    settings = LoRASettings(rank=3, num_layers=4, learning_rate=0.5, batch_size=2, iterations=7, seed=6)
    expected = FinetuneOptions("m", "t.json", "o", 5, max_tokens=99, tool_format="hermes", settings=settings)
    assert given == [expected]


@pytest.mark.parametrize("command", ["chat", "demo", "bench"])
def test_the_other_commands_take_an_adapter_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    """One that is not there is refused by name, so it is looked at."""
    folder = write_folder(tmp_path / "model", CONFIG, random_weights(CONFIG))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["toolmask", command, "--model", str(folder), "--adapter", "absent"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "the adapter folder absent" in capsys.readouterr().err


def test_serve_refuses_a_tool_format_that_it_does_not_know_before_it_loads_anything() -> None:
    with pytest.raises(ConfigError, match="tool_format is 'hermas'"):
        run_server(ServerConfig(tool_format="hermas"))


def test_serve_refuses_a_drafting_model_that_there_is_not_before_it_loads_anything(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        run_server(ServerConfig(draft_model=str(tmp_path / "nowhere")))


def test_the_drafting_model_is_for_the_model_that_the_server_starts_with(monkeypatch: pytest.MonkeyPatch) -> None:
    drafters: list[object] = []
    monkeypatch.setattr(serve, "Engine", lambda *_, draft_model, **__: drafters.append(draft_model))
    load = serve.engine_loader(ServerConfig(model="a", draft_model="small"))
    load("a", lambda _: None)
    load("b", lambda _: None)
    assert drafters == ["small", None]


def test_inspect_says_what_a_model_is_taken_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "load", lambda *_, **__: fake_loaded(hermes=True))
    monkeypatch.setattr(sys, "argv", ["toolmask", "inspect", "a"])
    cli.main()
    assert "family:           hermes" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["toolmask", "inspect", "a", "--tool-format", "plain"])
    cli.main()
    assert "as asked for; detected would be hermes" in capsys.readouterr().out


def test_a_key_on_the_command_line_counts_before_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLMASK_API_KEY", "from the environment")
    assert served_with(monkeypatch, "--api-key", "sk-1").api_key == "sk-1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "99999"], "port is 99999"),
        (["--tools", "no_such_module_here"], "no_such_module_here"),
        (["--tools", "json"], "no function with @tool"),
    ],
)
def test_a_wrong_option_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as ended:
        served_with(monkeypatch, *arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 1
    assert words in error
    assert error.count("\n") == 1


def test_a_model_that_does_not_exist_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["toolmask", "serve", "--model", "./no/such/folder"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err.count("\n") == 1


def test_a_modules_tools_are_found_once_each(monkeypatch: pytest.MonkeyPatch, module: str, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (add,) = import_tools(module)
    assert Toolbox([calculate, add]).execute("add", {"a": 1, "b": 2}) == {"success": True, "result": 3}
    with pytest.raises(ConfigError, match="add"):
        Toolbox([add, add])


# The terminal.


def reply(prompt: str) -> str:
    if "broken" in prompt.rpartition("user\n")[2]:
        return "[bold]not markup[/bold]"
    return "It is 42." if "42.0" in prompt else call_text("calculate", '{"expression": "6 * 7"}')


def test_a_conversation_shows_the_call_its_result_and_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=200)
    questions = iter(["What is 6 * 7?", "", "broken"])

    def read(_: str) -> str:
        try:
            return next(questions)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(console, "input", read)
    with Engine(fake_that_answers(reply)) as engine:
        conversation = Conversation(engine, [calculate], console, system="Be brief.", max_tokens=99)
        run_chat(conversation, console)
    shown = console.file.getvalue()
    assert 'calculate {"expression": "6 * 7"}' in shown
    assert '{"success": true, "result": 42.0}' in shown
    assert "It is 42." in shown
    assert "[bold]not markup[/bold]" in shown
    roles = [message.role for message in conversation.messages]
    assert roles[:5] == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT]


def test_a_question_that_cannot_be_asked_leaves_the_conversation_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=200)
    questions = iter(["x " * 9000])
    monkeypatch.setattr(console, "input", lambda _: next(questions, None) or (_ for _ in ()).throw(EOFError))
    with Engine(fake_that_answers(reply)) as engine:
        conversation = Conversation(engine, [calculate], console)
        run_chat(conversation, console)
    assert "the prompt has" in console.file.getvalue()
    assert conversation.messages == ()

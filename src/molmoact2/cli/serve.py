"""`molmoact2 serve`: one policy for many robots, over the network."""

import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from molmoact2.serving.engine import Engine
    from molmoact2.serving.settings import ServerSettings


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve a checkpoint to robots, benchmarks and a dashboard.

    It listens on this computer alone unless --host says otherwise; beyond it, every client needs a token.
    docs/serving.md says how clients connect. Ctrl-C or SIGTERM finishes what runs and ends it.
    """

    checkpoint: Annotated[str, tyro.conf.Positional]
    """Checkpoint folder, hub id, or a bundled policy such as nano-so101."""
    embodiment: str | None = None
    """Serve this robot only; by default every robot that the checkpoint knows."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every network of this computer."""
    port: int = 8000
    """0 takes a free one."""
    token_file: Path | None = None
    """File with the token that clients have to say. Beyond this computer one is made and printed if none is given."""
    tls_cert: Path | None = None
    """Certificate (PEM), to encrypt what is said."""
    tls_key: Path | None = None
    name: tuple[str, ...] = ()
    """Further names that clients may call this computer by, where no token is asked for."""
    record: Path | None = None
    """Folder to write every exchange to."""
    record_gb: float | None = None
    """How large that folder may become: the oldest files go. By default nothing is deleted."""
    device: str = "cpu"
    dtype: str = "float32"
    """float32, bfloat16 or float16."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    action_tokenizer: str | None = None
    """Folder or hub id of what reads spoken actions, for checkpoints that come without it."""
    max_batch: int = 8
    """Questions of different robots that are computed together at most."""
    queue: int = 32
    """Questions that may wait."""
    sessions: int = 256
    """Robots that are remembered at once."""
    threads: int | None = None
    """Threads to compute with; torch's own choice by default."""

    def run(self) -> None:
        """Load, listen, answer, until a signal comes."""
        import torch

        from molmoact2.inference import load_policy
        from molmoact2.serving.app import build_app
        from molmoact2.serving.engine import Engine, EngineSettings
        from molmoact2.serving.flight import FlightRecorder, identify
        from molmoact2.serving.identity import name_of, revision_of
        from molmoact2.serving.run import serve
        from molmoact2.serving.settings import ServerSettings, is_loopback

        token = read_token(self.token_file)
        made = secrets.token_urlsafe(24) if token is None and not is_loopback(self.host) else None
        settings = ServerSettings(
            host=self.host,
            port=self.port,
            token=token or made,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            names=self.name,
        )
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        policy = load_policy(
            self.checkpoint,
            self.device,
            self.dtype,
            revision=self.revision,
            action_tokenizer=self.action_tokenizer,
        )
        engine = Engine(
            policy,
            embodiment=self.embodiment,
            settings=EngineSettings(max_batch=self.max_batch, queue=self.queue, sessions=self.sessions),
        )
        model = name_of(self.checkpoint)
        app = build_app(engine, settings, model=model, revision=revision_of(self.checkpoint, policy.revision))
        with ExitStack() as stack:
            if self.record is not None:
                identity = identify(policy, self.checkpoint, action_tokenizer=self.action_tokenizer)
                recorder = FlightRecorder(self.record, identity, max_gb=self.record_gb)
                engine.watchers.append(stack.enter_context(recorder))
            serve(
                app, engine, settings, listening=lambda port: announce(model, engine, settings, port=port, token=made)
            )


def read_token(path: Path | None) -> str | None:
    """The token in a file; ValueError where there is none."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"No token can be read from {path}: {error}.") from error


def announce(model: str, engine: "Engine", settings: "ServerSettings", *, port: int, token: str | None) -> None:
    """Say what is served to whom, and how to reach it."""
    host = {"0.0.0.0": "THIS-COMPUTER", "::": "THIS-COMPUTER"}.get(settings.host, settings.host)
    s, at = "s" * (settings.tls_cert is not None), f"{f'[{host}]' if ':' in host else host}:{port}"
    lines = [
        f"Serving {model} ({engine.policy.kind}) to {', '.join(engine.embodiments)}",
        f"  listening on   {settings.host}, port {port}, {'with' if settings.token else 'without'} a token",
        f"  dashboard      http{s}://{at}/",
        f"  molmoact2      molmoact2 run --server ws{s}://{at}",
        f"  DROID, YAM     POST http{s}://{at}/act (json_numpy)",
        f'  openpi         WebsocketClientPolicy("ws{s}://{at}/openpi")',
        f"  vla-eval       ws{s}://{at}/harness",
        f"  metrics        http{s}://{at}/metrics",
    ]
    if token is not None:
        lines.insert(2, f"  token          {token}   (made for this run; keep one with --token-file)")
    print("\n".join(lines), flush=True)

"""The command that serves."""

from __future__ import annotations

from typing import Annotated

import typer

from resnetkit.cli.flags import Debug, Device, JsonFlag, Mirror, Quiet


def serve(
    models: Annotated[
        list[str], typer.Argument(help="Run folders or model folders, or NAME=FOLDER.", metavar="MODELS...")
    ],
    host: Annotated[
        str, typer.Option(help="Where to listen; only this machine if left out.", metavar="ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0: any that is free.", metavar="N", min=0, max=65535)] = 8000,
    token: Annotated[
        str, typer.Option(help="What clients have to know; better as RESNETKIT_TOKEN.", metavar="TEXT")
    ] = "",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that the server is asked under, as its proxy's.", metavar="NAME")
    ] = None,
    root_path: Annotated[str, typer.Option(help="What a proxy has before all paths: /photos.", metavar="PATH")] = "",
    proxy: Annotated[
        str, typer.Option(help="Address of a proxy whose X-Forwarded-For is believed.", metavar="ADDRESS")
    ] = "",
    backend: Annotated[
        str, typer.Option(help="auto (the fastest), torch, onnxruntime, openvino or ncnn.", metavar="NAME")
    ] = "auto",
    mirror: Mirror = False,
    device: Device = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A limit: --set serve.max_queue=64 (see docs/serve.md).", metavar="KEY=VALUE"),
    ] = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Serve models to a page for people and to programs, until Ctrl-C; the log is JSON lines on stderr."""
    import os

    from resnetkit import api
    from resnetkit.recipe import parse_setting

    api.serve(
        models,
        host=host,
        port=port,
        token=token or os.environ.get("RESNETKIT_TOKEN", ""),
        allow_hosts=allow_host or (),
        root_path=root_path,
        proxy=proxy,
        backend=backend,
        device=device or "auto",
        mirror=mirror,
        settings=dict(map(parse_setting, settings or ())),
        quiet=quiet or as_json,
    )

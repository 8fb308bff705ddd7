"""The tokenizer without a network, the hub, and proxies."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, getproxies, proxy_bypass, urlopen

from vlc.common.errors import UserError
from vlc.workflows.doctor import torch_process
from vlc.workflows.doctor.finding import Asked, Finding, note, ok, problem

_DEFAULT = "bert-base-uncased"
_SECONDS = 3


def probe_tokenizer(asked: Asked) -> Iterator[Finding]:
    """Open the tokenizer without asking the hub for it."""
    if not torch_process.answer("torch").facts:
        yield note("tokenizers are not looked at, as torch cannot be imported")
        return
    from vlc.data.packaged_tokenizers import INSTALL, NAMES
    from vlc.data.tokens import load_tokenizer, vocabulary_size

    name = asked.tokenizer or _DEFAULT
    try:
        tokenizer = load_tokenizer(name, stored=True)
    except UserError as error:
        place = "is not in this machine's cache of the hub" if not Path(name).exists() else f"cannot be used: {error}"
        fetch = f"hf download {name} --local-dir FOLDER, and tokenizer=FOLDER"
        report = problem if asked.tokenizer else note
        yield report(f"tokenizer={name} {place}", f"{INSTALL}, or {fetch}" if name in NAMES else fetch)
    else:
        yield ok(f"tokenizer={name} is found without a network; it has {vocabulary_size(tokenizer):,} pieces")
    if name != "emoji":
        yield ok("tokenizer=emoji is part of vlc")


def probe(asked: Asked) -> Iterator[Finding]:
    """Look at proxies and certificates, and ask the hub once whether it answers."""
    proxies = {scheme: urlsplit(address) for scheme, address in getproxies().items() if scheme != "no"}
    for scheme, address in proxies.items():  # the address may hold a password, which is not shown
        yield ok(f"{scheme} goes through the proxy {address.hostname or address.path}")
    if proxies and not proxy_bypass("127.0.0.1"):
        yield note("requests to this machine go through the proxy too", "export NO_PROXY=localhost,127.0.0.1")
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if (path := os.environ.get(name)) and not Path(path).exists():
            yield problem(f"{name}={path} does not exist: every request over HTTPS fails", f"unset {name}")
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        yield ok("HF_HUB_OFFLINE is set: the hub is never asked")
        return
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urlopen(Request(hub, method="HEAD"), timeout=_SECONDS).close()
    except HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        yield note(f"{hub} does not answer ({getattr(error, 'reason', error)}); docs/offline.md says what needs it")
        return
    yield ok(f"{hub} answers")

"""The pinned wheels whose Python functions are the default corpus: pure Python, so that every machine has the same."""

import re
from typing import NamedTuple


class Wheel(NamedTuple):
    """sha256: of the file; sources: of its Python files alone (`data.packages`), None where only the wheel itself tells."""

    sha256: str
    sources: str | None


WHEELS = {
    "sympy==1.14.0": Wheel(
        "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
        "3a3b9d796207cbbc5ae87c66f1f48b51766adb4229ee7d7d6167b59dd5d486e7",
    ),
    "networkx==3.6.1": Wheel(
        "d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762",
        "b992dfa90bb5c3364ab08dc286453e73a6c01d2b60162e9335ddd56257ff936a",
    ),
    "ipython==9.18.1": Wheel(
        "997ce9140d374531a61069c70c0f9ef299d6dd3559ea0f94b8af589726e3c1d5",
        "c3c545e9744be50258229f658f7a240046dc4521e16c6c0a3477da2dc35a621a",
    ),
    "huggingface-hub==2.4.0": Wheel(
        "42ecfd93ede47bdd333daebbf66a32d7bfe2e18752754fe4d2d4f98a0179d801",
        "633629ac8ebc651b558c203a067513f47bf77d861a3b6310d8e096d2b812cc2a",
    ),
    "peft==0.21.2": Wheel(
        "106ab6077ff72c54d21577f9af5970e34bac7582cb14209f7b2b511e322a4eae",
        "a8b7a7d405b4f3a8f6a66c165d039007e12abe212d3e6783eef75460087dabf3",
    ),
    "datasets==5.2.0": Wheel(
        "4be9e2882caaf5db13eadc39e93f3da2a995187b99acebac1595bf6c58dfa927",
        "c23c09f558def3eef9570881c6b9c6789724d7b182ce05ebe25d40ce6629350a",
    ),
    "pydantic==2.14.3": Wheel(
        "3f7b347782ab7e4cf4c798496ae3a82787d9f21ec12676a9c564355eeef8daa8",
        "a8e4b10cffe21f9ea5d276744280102e970eda7a43a57431bb274e46fe9a4255",
    ),
    "mpmath==1.3.0": Wheel(
        "a0b2b9fe80bbcd81a6647ff13108738cfb482d481d826cc0e02f5b35e5c88d2c",
        "2ed35ce8a9d624c9d06eaddf5cdc70545389a47df555861df3c1ec0a4e674b02",
    ),
    "jedi==0.20.1": Wheel(
        "0fb16d86c4a4c73c37ba518c77419975e30fcc620658a8d14fbb5720cdd34142",
        "d40b90688cbb62f02fdc28c99ed5705fe1121e66d1d1ba98e3968422389e7ac8",
    ),
    "accelerate==1.15.0": Wheel(
        "97eacca0b73e45cb867dbf8c5d5d4dc32219544300e0c8992c7334dc2ef33cec",
        "58a8f6fc93ee53bce76d5f697d5d3cb9d6d69540041d0665a86fdeb4d8900f28",
    ),
    "fsspec==2026.9.0": Wheel(
        "8dd6e646e99ea382bd85f97a45e6b526a442d79423a7dc673f1e2756d05fcb5f",
        "1592c2458df482c79a1c723848e89a79ceb8eb535fa5508800a8c7c82c32eb30",
    ),
}
"""By requirement. Left out are packages that differ by platform, and those in which many functions are copies of others."""

_OTHER = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+]*) --hash=sha256:([0-9a-f]{64})")


def pinned(package: str) -> tuple[str, Wheel] | None:
    """(requirement, wheel) of an entry of `packages`: one of `WHEELS`, or `name==version --hash=sha256:HEX`. None: neither."""
    if package in WHEELS:
        return package, WHEELS[package]
    match = _OTHER.fullmatch(package)
    return (match[1], Wheel(match[2], None)) if match else None

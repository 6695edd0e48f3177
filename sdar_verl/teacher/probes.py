"""Texts that tell tokenizers apart: with one vocabulary, other merge rules or normalisation cut them otherwise."""

PROBES = (
    "Hello, world! 1234567890 3.14159",
    "  leading,\ttabs\n\n\nand   spaces ",
    "naïve café ﬁ ① 日本語 \U0001f600 İstanbul",
    "<action>go to drawer 12</action><think>I'd rather...</think>",
)

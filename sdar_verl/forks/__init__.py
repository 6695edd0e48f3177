"""The processes of a run on the CPU, forked from one that has imported the large libraries.

A run has about nine processes that import torch, transformers, vLLM and verl one after the other, 10 to 20 seconds of a
core each: most of a start on two cores, and of its memory. Here one process imports them (`server`) and forks
(`program`) for whoever asks (`client`): the driver, Ray's workers, vLLM's engine and teacher servers (`starter`).
Program, environment and files of a fork are what they would be in a process of its own; where they cannot be, it gets
one. Not for GPUs: a process that has touched one cannot be forked.
"""

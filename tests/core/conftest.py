"""A dense float64 NumPy version of the objective, written from the equations and sharing no code with the package."""

from types import SimpleNamespace

import numpy as np
import pytest


def make_case(seed, rows, columns, density=0.6, scale=1.0):
    """Random student and teacher log-probabilities (B, T) <= 0 and a 0/1 mask (B, T)."""
    rng = np.random.default_rng(seed)
    student = -np.abs(rng.normal(size=(rows, columns))) * scale
    teacher = -np.abs(rng.normal(size=(rows, columns))) * scale
    mask = (rng.random((rows, columns)) < density).astype(np.int64)
    return student, teacher, mask


def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def gate_values(student, teacher, beta, gate="gap"):
    return sigmoid(beta * (teacher - student)) if gate == "gap" else np.ones_like(student)


def loss_with_gate(student, teacher, mask, gate, num_tokens=None):
    """Token mean of gate * (teacher - student), the gate being a given number per token."""
    total = 0.0
    for row in range(student.shape[0]):
        for column in range(student.shape[1]):
            if mask[row, column]:
                total += gate[row, column] * (teacher[row, column] - student[row, column])
    count = int(mask.sum()) if num_tokens is None else num_tokens
    return total / count if count else 0.0


def loss(student, teacher, mask, beta=5.0, gate="gap", num_tokens=None):
    return loss_with_gate(student, teacher, mask, gate_values(student, teacher, beta, gate), num_tokens)


def gradient(student, teacher, mask, beta=5.0, gate="gap", num_tokens=None):
    """dL/d student with the gate held fixed: minus the gate, divided by the number of tokens."""
    count = int(mask.sum()) if num_tokens is None else num_tokens
    return -gate_values(student, teacher, beta, gate) * mask / max(count, 1)


@pytest.fixture(scope="session")
def oracle():
    return SimpleNamespace(
        make_case=make_case,
        sigmoid=sigmoid,
        gate_values=gate_values,
        loss=loss,
        loss_with_gate=loss_with_gate,
        gradient=gradient,
    )

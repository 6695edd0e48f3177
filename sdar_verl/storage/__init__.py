"""Checkpoints that outlive their machine: manifests, S3, the background upload, and what a start goes on from.

Errors are `StorageError`; `DamageError` where what is stored is not what was saved.
"""

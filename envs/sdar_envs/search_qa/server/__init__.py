"""The retriever as a service: Search-R1's HTTP contract with limits, health and metrics."""

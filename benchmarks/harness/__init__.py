"""What all benchmarks share: alternation, statistics, tables, charts, the machine, environments, workers, a server, texts."""

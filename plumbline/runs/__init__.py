"""Runs: stages that make artefacts, each made once, resumed exactly and traced to its inputs."""

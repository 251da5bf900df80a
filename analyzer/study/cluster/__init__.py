"""A run whose images are measured by the workers of a Dask cluster; its one writer stays here.

connection    to a scheduler, or to workers that are started here
workers       those that a cluster has: sent the network, opened, held against each other
sending       how an image gets to one
engine        images out, answers in, whatever happens to workers meanwhile
worker        what runs on a worker
"""

from analyzer.study.cluster.connection import check_address
from analyzer.study.cluster.engine import Cluster

__all__ = ["Cluster", "check_address"]

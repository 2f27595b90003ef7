"""
Supervisors: actors that restart others, and services of supervised actors on a Ray cluster.
"""

from supervisors.app import App
from supervisors.backoff import Backoff
from supervisors.cluster import Cluster, connect
from supervisors.resources import Resources
from supervisors.service import Service, ServiceRef
from supervisors.spec import ChildCounts, ChildInfo, ChildSpec
from supervisors.supervisor import Supervisor

__all__ = [
    "App",
    "Backoff",
    "ChildCounts",
    "ChildInfo",
    "ChildSpec",
    "Cluster",
    "Resources",
    "Service",
    "ServiceRef",
    "Supervisor",
    "connect",
]

"""An ambient mesh on one machine: clients and workloads around a waypoint, and checks of what happens between them."""

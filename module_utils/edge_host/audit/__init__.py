"""What an audit of a host reads; `edge_fleet.audit` judges it."""

"""HardwareProfile: what a version costs and gives on one device, measured. All of this package is pure.

`sweep` says what to measure next, `profile` keeps what was measured, `report` and `curves` show it. The control plane's
`measuring` carries a sweep out through a real tritonserver; placement and scaling read the profiles.
"""

//! Active health checks: thresholds over probe results. The probing itself is the coordinator's.

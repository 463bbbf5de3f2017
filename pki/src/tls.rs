//! TLS 1.3 configurations, one per relation of the mesh.

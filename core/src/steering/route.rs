//! The route table of one listener.

use crate::id::RouteId;

/// What routing may look at of a request. Implemented by the data path over the bytes as received,
/// and by `explain` over what an operator typed.
pub trait RequestView {
    /// The method, as sent.
    fn method(&self) -> &[u8];
    /// The host of the request, as sent, without port.
    fn host(&self) -> &[u8];
    /// The path, beginning with `/` (or `*`), without query.
    fn path(&self) -> &[u8];
    /// The query, without `?`.
    fn query(&self) -> Option<&[u8]>;
    /// The first field of this name (lower case), without surrounding white space.
    fn header(&self, name: &str) -> Option<&[u8]>;
}

/// The routes of one listener, compiled.
#[derive(Debug, Default)]
pub struct RouteTable {}

impl RouteTable {
    /// The route that `request` takes. Allocates nothing.
    pub fn find<R: RequestView + ?Sized>(&self, request: &R) -> Option<RouteId> {
        let _ = request;
        None
    }
}

/// A compiled path rewrite.
#[derive(Debug)]
pub struct PathRewriter {}

impl PathRewriter {
    /// Appends the rewritten path (without query) to `out`.
    pub fn rewrite(&self, path: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(path);
    }
}

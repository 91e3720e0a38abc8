//! The layers of the images that a command pulls at the moment: what else containerd downloads is for others.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
};

use crate::description::Description;

/// Digests of layers, by the places of their images in the command.
#[derive(Debug, Default)]
pub struct LayersAtWork(RefCell<HashMap<usize, HashSet<String>>>);

/// An image that is noted until this is dropped.
#[derive(Debug)]
pub struct Noted<'a>(&'a LayersAtWork, usize);

impl LayersAtWork {
    /// Notes the layers of an image.
    pub fn note(&self, number: usize, description: &Description) -> Noted<'_> {
        let layers = description.content.iter().flat_map(|content| &content.layers);
        let layers = layers.map(|layer| layer.digest.clone()).collect();
        self.0.borrow_mut().insert(number, layers);
        Noted(self, number)
    }

    /// Tells whether a layer is of one of the images.
    #[must_use]
    pub fn has(&self, digest: &str) -> bool {
        self.0.borrow().values().any(|layers| layers.contains(digest))
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.0.0.borrow_mut().remove(&self.1);
    }
}

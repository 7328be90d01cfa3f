//! Synthetic studies from real pixels: deterministic, made once, kept under `target/bench-data`.
//!
//! CT: the 128 x 128 slice of `tests/data/samples/ct_image.dcm`, enlarged four times, warped
//! smoothly along the table, with quantum-like noise. MR: the ten melon slices of
//! `tests/data/study`, blended, with noise. Without noise, disks and lines that compress would
//! flatter everybody.

use std::fs;
use std::path::{Path, PathBuf};

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileDicomObject, FileMetaTableBuilder, InMemDicomObject};

use super::{repository, store};

/// A set of files of one study.
#[derive(Debug, Clone)]
pub struct Set {
    /// "CT" or "MR".
    pub name: &'static str,
    /// Its files, in order.
    pub files: Vec<PathBuf>,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Set {
    /// The first `n` files.
    pub fn first(&self, n: usize) -> Self {
        let files: Vec<_> = self.files.iter().take(n).cloned().collect();
        Self { name: self.name, bytes: bytes_of(&files), files }
    }

    /// Links the files into `n` folders below `dir`, dealt out in turn.
    pub fn deal(&self, dir: &Path, n: usize) -> Vec<PathBuf> {
        let folders: Vec<_> = (0..n).map(|k| dir.join(format!("part{k}of{n}"))).collect();
        for folder in &folders {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir_all(folder).expect("a folder");
        }
        for (k, file) in self.files.iter().enumerate() {
            let name = file.file_name().expect("a name");
            fs::hard_link(file, folders[k % n].join(name)).expect("a link");
        }
        folders
    }
}

fn bytes_of(files: &[PathBuf]) -> u64 {
    files.iter().map(|f| fs::metadata(f).map_or(0, |m| m.len())).sum()
}

/// Makes or finds the set: `ct` is 500 x 0.53 MB, `mr` 1000 x 0.14 MB.
pub fn set(name: &str) -> Set {
    let (name, count) = match name {
        "ct" => ("CT", 500),
        "mr" => ("MR", 1000),
        other => panic!("no set {other}: ct or mr"),
    };
    let dir = store().join(name);
    let file = |n: usize| dir.join(format!("{name}{n:04}.dcm"));
    if !file(count - 1).exists() {
        eprintln!("making {count} {name} images in {}", dir.display());
        fs::create_dir_all(&dir).expect("a folder");
        let maker = if name == "CT" { Maker::ct() } else { Maker::mr() };
        (0..count).for_each(|n| maker.write(n, &file(n)));
    }
    let files: Vec<_> = (0..count).map(file).collect();
    Set { name, bytes: bytes_of(&files), files }
}

type Object = FileDicomObject<InMemDicomObject>;

struct Maker {
    template: Object,
    /// Slices to blend, all of `side` x `side`.
    slices: Vec<Vec<f32>>,
    side: usize,
    /// How much the image is enlarged.
    zoom: usize,
    noise: f32,
    study: u64,
}

fn slice(object: &Object) -> Vec<f32> {
    let pixels = object.element(tags::PIXEL_DATA).expect("pixels").to_bytes().expect("bytes");
    pixels.chunks_exact(2).map(|p| f32::from(i16::from_le_bytes([p[0], p[1]]))).collect()
}

impl Maker {
    fn ct() -> Self {
        let path = repository().join("tests/data/samples/ct_image.dcm");
        let template = dicom_object::open_file(path).expect("the CT sample");
        let slices = vec![slice(&template)];
        Self { template, slices, side: 128, zoom: 4, noise: 12.0, study: 1 }
    }

    fn mr() -> Self {
        let dir = repository().join("tests/data/study");
        let mut paths: Vec<_> =
            fs::read_dir(dir).expect("the study").map(|e| e.expect("an entry").path()).collect();
        paths.sort();
        let objects: Vec<Object> =
            paths.iter().map(|p| dicom_object::open_file(p).expect("a slice")).collect();
        let slices = objects.iter().map(slice).collect();
        let template = objects.into_iter().next().expect("ten slices");
        Self { template, slices, side: 256, zoom: 1, noise: 9.0, study: 2 }
    }

    /// The value at a place of slice `z` (both fractional), linear between its neighbours.
    fn at(&self, z: f32, y: f32, x: f32) -> f32 {
        let last = self.side - 1;
        let (y, x) = (y.clamp(0.0, last as f32), x.clamp(0.0, last as f32));
        let (y0, x0) = (y as usize, x as usize);
        let (y1, x1) = ((y0 + 1).min(last), (x0 + 1).min(last));
        let (fy, fx) = (y - y0 as f32, x - x0 as f32);
        let plane = |s: &[f32]| {
            let row = |r: usize| s[r * self.side + x0] * (1.0 - fx) + s[r * self.side + x1] * fx;
            row(y0) * (1.0 - fy) + row(y1) * fy
        };
        let (z0, n) = (z as usize, self.slices.len());
        let fz = z - z0 as f32;
        plane(&self.slices[z0 % n]) * (1.0 - fz) + plane(&self.slices[(z0 + 1) % n]) * fz
    }

    fn pixels(&self, n: usize) -> Vec<u16> {
        let side = self.side * self.zoom;
        let mut noise = Noise(self.study << 32 | n as u64);
        let z = n as f32 / 40.0;
        let mut out = Vec::with_capacity(side * side);
        for r in 0..side {
            for c in 0..side {
                let (y, x) = (r as f32 / self.zoom as f32, c as f32 / self.zoom as f32);
                let y = y + 2.0 * (x / 23.0 + z).sin();
                let x = x + 2.0 * (y / 29.0 + z).cos();
                let value = self.at(z, y, x) + self.noise * noise.next();
                out.push(value.round().clamp(-32768.0, 32767.0) as i16 as u16);
            }
        }
        out
    }

    fn write(&self, n: usize, path: &Path) {
        let side = (self.side * self.zoom) as u16;
        let instance = format!("2.25.{}{:06}", 7_000_000 + self.study, n);
        let mut object: InMemDicomObject = (*self.template).clone();
        let mut put = |tag, vr, value: PrimitiveValue| {
            object.put(DataElement::new(tag, vr, value));
        };
        put(tags::SOP_INSTANCE_UID, VR::UI, instance.as_str().into());
        put(tags::STUDY_INSTANCE_UID, VR::UI, format!("2.25.{}", 8_000_000 + self.study).into());
        put(tags::INSTANCE_NUMBER, VR::IS, (n + 1).to_string().into());
        put(tags::ROWS, VR::US, side.into());
        put(tags::COLUMNS, VR::US, side.into());
        put(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(self.pixels(n).into()));
        let class = self.template.meta().media_storage_sop_class_uid().to_owned();
        let meta = FileMetaTableBuilder::new()
            .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
            .media_storage_sop_class_uid(class)
            .media_storage_sop_instance_uid(instance);
        let file = object.with_meta(meta).expect("file meta");
        file.write_to_file(path).expect("a file");
    }
}

/// splitmix64, summed to something like a normal distribution.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // Four uniform numbers of 16 bits: mean 2, variance 1/3.
        let sum: u64 = (0..4).map(|k| z >> (16 * k) & 0xffff).sum();
        (sum as f32 / 65536.0 - 2.0) * 1.732
    }
}

//! The description of the machine: an OVF envelope.

/// The namespace of descriptions that every product reads.
pub(super) const NAME_SPACE: &str = "http://schemas.dmtf.org/ovf/envelope/1";

/// The format of a disk that is a stream.
pub(super) const STREAM: &str =
    "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";

const PROCESSORS: u32 = 2;
const MEMORY_MIB: u32 = 2048;

/// What the description says about the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk<'a> {
    /// The name of its file.
    pub(super) file: &'a str,
    /// Length of the file in bytes.
    pub(super) file_len: u64,
    /// Size that the guest sees, in bytes.
    pub(super) capacity: u64,
    /// Number of these bytes that the disk holds.
    pub(super) populated: u64,
}

/// The description of a machine with this name and one disk.
pub(super) fn envelope(machine: &str, disk: &Disk<'_>) -> String {
    let Disk {
        file_len,
        capacity,
        populated,
        ..
    } = disk;
    let (machine, file) = (escaped(machine), escaped(disk.file));
    // The elements of an item are in alphabetical order, as its schema requires.
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="{NAME_SPACE}" xmlns:ovf="{NAME_SPACE}" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References>
    <File ovf:href="{file}" ovf:id="file1" ovf:size="{file_len}"/>
  </References>
  <DiskSection>
    <Info>Virtual disks</Info>
    <Disk ovf:capacity="{capacity}" ovf:capacityAllocationUnits="byte" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="{STREAM}" ovf:populatedSize="{populated}"/>
  </DiskSection>
  <VirtualSystem ovf:id="{machine}">
    <Info>A virtual machine</Info>
    <Name>{machine}</Name>
    <OperatingSystemSection ovf:id="102" vmw:osType="otherGuest64">
      <Info>The guest operating system</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Virtual hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{machine}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:Description>Number of virtual processors</rasd:Description>
        <rasd:ElementName>{PROCESSORS} virtual processors</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>{PROCESSORS}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:Description>Memory</rasd:Description>
        <rasd:ElementName>{MEMORY_MIB} MiB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>{MEMORY_MIB}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:Description>SCSI controller</rasd:Description>
        <rasd:ElementName>SCSI controller 0</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>lsilogic</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>Hard disk 1</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"#
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

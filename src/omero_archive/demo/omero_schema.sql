-- The tables of an OMERO 5.4 database that omero-archive touches, for its demo and its tests.
--
-- Written for omero-archive from the published facts of OMERO's schema (names, types, nullability, keys,
-- what the functions and triggers do); no line of it comes from OMERO. Tables that matter to nobody here
-- (instruments, experiments, rendering settings ...) are left out, and so are the foreign keys to them.

CREATE DOMAIN nonnegative_int AS integer CHECK (VALUE >= 0);

CREATE TYPE unitslength AS ENUM (
    'Ym', 'Zm', 'Em', 'Pm', 'Tm', 'Gm', 'Mm', 'km', 'hm', 'dam', 'm', 'dm', 'cm', 'mm', 'µm', 'nm', 'pm', 'fm',
    'am', 'zm', 'ym', 'Å', 'thou', 'li', 'in', 'ft', 'yd', 'mi', 'ua', 'ly', 'pc', 'pt', 'pixel', 'reference frame'
);
CREATE TYPE unitstime AS ENUM (
    'Ys', 'Zs', 'Es', 'Ps', 'Ts', 'Gs', 'Ms', 'ks', 'hs', 'das', 's', 'ds', 'cs', 'ms', 'µs', 'ns', 'ps', 'fs',
    'as', 'zs', 'ys', 'min', 'h', 'd'
);


-- Tables -----------------------------------------------------------------------------------------------------

-- One row per sequence: the id is the second key of the advisory lock that guards it.
CREATE TABLE _lock_ids (
    id serial PRIMARY KEY,
    name text NOT NULL UNIQUE
);

CREATE TABLE _reindexing_required (
    event_id bigint NOT NULL,
    entity_type text NOT NULL,
    entity_id bigint NOT NULL
);

CREATE TABLE annotation (
    id bigint NOT NULL PRIMARY KEY,
    discriminator varchar(31) NOT NULL,
    description text,
    permissions bigint NOT NULL,
    name text,
    ns text,
    version integer,
    boolvalue boolean,
    textvalue text,
    doublevalue double precision,
    longvalue bigint,
    termvalue text,
    timevalue timestamp,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    "file" bigint,
    UNIQUE (external_id)
);

CREATE TABLE annotation_mapvalue (
    annotation_id bigint NOT NULL,
    name text NOT NULL,
    value text NOT NULL,
    "index" integer NOT NULL,
    PRIMARY KEY (annotation_id, "index")
);

CREATE TABLE checksumalgorithm (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    value varchar(255) NOT NULL,
    external_id bigint,
    UNIQUE (value),
    UNIQUE (external_id)
);

CREATE TABLE configuration (
    name varchar(255) NOT NULL PRIMARY KEY,
    value text
);

CREATE TABLE dataset (
    id bigint NOT NULL PRIMARY KEY,
    description text,
    permissions bigint NOT NULL,
    name text NOT NULL,
    version integer,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    UNIQUE (external_id)
);

CREATE TABLE datasetannotationlink (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    version integer,
    child bigint NOT NULL,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    parent bigint NOT NULL,
    UNIQUE (parent, child, owner_id),
    UNIQUE (external_id)
);

CREATE TABLE datasetimagelink (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    version integer,
    child bigint NOT NULL,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    parent bigint NOT NULL,
    UNIQUE (parent, child, owner_id),
    UNIQUE (external_id)
);

CREATE TABLE dbpatch (
    id bigint NOT NULL PRIMARY KEY,
    currentpatch integer NOT NULL,
    currentversion varchar(255) NOT NULL,
    permissions bigint NOT NULL,
    finished timestamp,
    message varchar(255),
    previouspatch integer NOT NULL,
    previousversion varchar(255) NOT NULL,
    external_id bigint,
    UNIQUE (external_id)
);

CREATE TABLE dimensionorder (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    value varchar(255) NOT NULL,
    external_id bigint,
    UNIQUE (value),
    UNIQUE (external_id)
);

CREATE TABLE event (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    status varchar(255),
    "time" timestamp NOT NULL,
    containingevent bigint,
    external_id bigint,
    experimenter bigint NOT NULL,
    experimentergroup bigint NOT NULL,
    "session" bigint NOT NULL,
    "type" bigint NOT NULL,
    UNIQUE (external_id)
);

CREATE TABLE eventlog (
    id bigint NOT NULL PRIMARY KEY,
    action varchar(255) NOT NULL,
    permissions bigint NOT NULL,
    entityid bigint NOT NULL,
    entitytype varchar(255) NOT NULL,
    external_id bigint,
    event bigint NOT NULL,
    UNIQUE (external_id)
);

CREATE TABLE eventtype (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    value varchar(255) NOT NULL,
    external_id bigint,
    UNIQUE (value),
    UNIQUE (external_id)
);

CREATE TABLE experimenter (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    email varchar(255),
    firstname varchar(255) NOT NULL,
    institution varchar(255),
    lastname varchar(255) NOT NULL,
    ldap boolean NOT NULL,
    middlename varchar(255),
    omename varchar(255) NOT NULL,
    version integer,
    external_id bigint,
    UNIQUE (omename),
    UNIQUE (external_id)
);

CREATE TABLE experimentergroup (
    id bigint NOT NULL PRIMARY KEY,
    description text,
    permissions bigint NOT NULL,
    ldap boolean NOT NULL,
    name varchar(255) NOT NULL,
    version integer,
    external_id bigint,
    UNIQUE (name),
    UNIQUE (external_id)
);

CREATE TABLE externalinfo (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    entityid bigint NOT NULL,
    entitytype varchar(255) NOT NULL,
    lsid varchar(255),
    uuid varchar(255),
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    UNIQUE (external_id)
);

CREATE TABLE fileset (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    templateprefix text NOT NULL,
    version integer,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    UNIQUE (external_id)
);

CREATE TABLE filesetannotationlink (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    version integer,
    child bigint NOT NULL,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    parent bigint NOT NULL,
    UNIQUE (parent, child, owner_id),
    UNIQUE (external_id)
);

CREATE TABLE filesetentry (
    id bigint NOT NULL PRIMARY KEY,
    clientpath text NOT NULL,
    permissions bigint NOT NULL,
    version integer,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    fileset bigint NOT NULL,
    originalfile bigint NOT NULL,
    fileset_index integer NOT NULL,
    UNIQUE (fileset, fileset_index),
    UNIQUE (external_id)
);

CREATE TABLE filesetjoblink (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    version integer,
    child bigint NOT NULL,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    parent bigint NOT NULL,
    parent_index integer NOT NULL,
    UNIQUE (parent, child, owner_id),
    UNIQUE (parent, parent_index),
    UNIQUE (external_id)
);

CREATE TABLE "format" (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    value varchar(255) NOT NULL,
    external_id bigint,
    UNIQUE (value),
    UNIQUE (external_id)
);

CREATE TABLE groupexperimentermap (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    owner boolean NOT NULL,
    version integer,
    child bigint NOT NULL,
    external_id bigint,
    parent bigint NOT NULL,
    child_index integer NOT NULL,
    UNIQUE (parent, child),
    UNIQUE (child, child_index),
    UNIQUE (external_id)
);

CREATE TABLE image (
    id bigint NOT NULL PRIMARY KEY,
    acquisitiondate timestamp,
    archived boolean,
    description text,
    permissions bigint NOT NULL,
    name text NOT NULL,
    partial boolean,
    series nonnegative_int DEFAULT 0 NOT NULL,
    version integer,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    experiment bigint,
    fileset bigint,
    "format" bigint,
    imagingenvironment bigint,
    instrument bigint,
    objectivesettings bigint,
    stagelabel bigint,
    UNIQUE (external_id)
);

CREATE TABLE imageannotationlink (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    version integer,
    child bigint NOT NULL,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    parent bigint NOT NULL,
    UNIQUE (parent, child, owner_id),
    UNIQUE (external_id)
);

CREATE TABLE job (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    finished timestamp,
    groupname varchar(255) NOT NULL,
    message varchar(255) NOT NULL,
    scheduledfor timestamp NOT NULL,
    started timestamp,
    submitted timestamp NOT NULL,
    "type" varchar(255) NOT NULL,
    username varchar(255) NOT NULL,
    version integer,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    status bigint NOT NULL,
    UNIQUE (external_id)
);

CREATE TABLE joboriginalfilelink (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    version integer,
    child bigint NOT NULL,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    parent bigint NOT NULL,
    UNIQUE (parent, child, owner_id),
    UNIQUE (external_id)
);

CREATE TABLE namespace (
    id bigint NOT NULL PRIMARY KEY,
    description text,
    permissions bigint NOT NULL,
    display boolean,
    displayname text,
    keywords text[],
    multivalued boolean,
    name text NOT NULL,
    version integer,
    external_id bigint,
    UNIQUE (name),
    UNIQUE (external_id)
);

CREATE TABLE node (
    id bigint NOT NULL PRIMARY KEY,
    conn text NOT NULL,
    permissions bigint NOT NULL,
    down timestamp,
    scale integer,
    up timestamp NOT NULL,
    uuid varchar(255) NOT NULL,
    version integer,
    external_id bigint,
    UNIQUE (uuid),
    UNIQUE (external_id)
);

CREATE TABLE originalfile (
    id bigint NOT NULL PRIMARY KEY,
    atime timestamp,
    ctime timestamp,
    permissions bigint NOT NULL,
    hash text,
    mimetype varchar(255) DEFAULT 'application/octet-stream',
    mtime timestamp,
    name text NOT NULL,
    path text NOT NULL,
    repo varchar(36),
    "size" bigint,
    version integer,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    hasher bigint,
    UNIQUE (external_id)
);

CREATE TABLE originalfileannotationlink (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    version integer,
    child bigint NOT NULL,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    parent bigint NOT NULL,
    UNIQUE (parent, child, owner_id),
    UNIQUE (external_id)
);

CREATE TABLE pixels (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    methodology varchar(255),
    physicalsizexunit unitslength,
    physicalsizex double precision,
    physicalsizeyunit unitslength,
    physicalsizey double precision,
    physicalsizezunit unitslength,
    physicalsizez double precision,
    sha1 varchar(255) NOT NULL,
    significantbits integer,
    sizec integer NOT NULL,
    sizet integer NOT NULL,
    sizex integer NOT NULL,
    sizey integer NOT NULL,
    sizez integer NOT NULL,
    timeincrementunit unitstime,
    timeincrement double precision,
    version integer,
    waveincrement integer,
    wavestart integer,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    dimensionorder bigint NOT NULL,
    image bigint NOT NULL,
    pixelstype bigint NOT NULL,
    relatedto bigint,
    image_index integer NOT NULL,
    path text,
    name text,
    repo varchar(36),
    UNIQUE (image, image_index),
    UNIQUE (external_id)
);

CREATE TABLE pixelsoriginalfilemap (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    version integer,
    child bigint NOT NULL,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    parent bigint NOT NULL,
    UNIQUE (parent, child, owner_id),
    UNIQUE (external_id)
);

CREATE TABLE pixelstype (
    id bigint NOT NULL PRIMARY KEY,
    bitsize integer NOT NULL,
    permissions bigint NOT NULL,
    value varchar(255) NOT NULL,
    external_id bigint,
    UNIQUE (value),
    UNIQUE (external_id)
);

CREATE TABLE plate (
    id bigint NOT NULL PRIMARY KEY,
    columnnamingconvention varchar(255),
    "columns" integer,
    defaultsample integer,
    description text,
    permissions bigint NOT NULL,
    externalidentifier varchar(255),
    name text NOT NULL,
    rownamingconvention varchar(255),
    "rows" integer,
    status text,
    version integer,
    welloriginxunit unitslength,
    welloriginx double precision,
    welloriginyunit unitslength,
    welloriginy double precision,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    UNIQUE (external_id)
);

CREATE TABLE plateacquisition (
    id bigint NOT NULL PRIMARY KEY,
    description text,
    permissions bigint NOT NULL,
    endtime timestamp,
    maximumfieldcount integer,
    name text,
    starttime timestamp,
    version integer,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    plate bigint NOT NULL,
    UNIQUE (external_id)
);

CREATE TABLE plateannotationlink (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    version integer,
    child bigint NOT NULL,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    parent bigint NOT NULL,
    UNIQUE (parent, child, owner_id),
    UNIQUE (external_id)
);

CREATE TABLE project (
    id bigint NOT NULL PRIMARY KEY,
    description text,
    permissions bigint NOT NULL,
    name text NOT NULL,
    version integer,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    UNIQUE (external_id)
);

CREATE TABLE projectannotationlink (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    version integer,
    child bigint NOT NULL,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    parent bigint NOT NULL,
    UNIQUE (parent, child, owner_id),
    UNIQUE (external_id)
);

CREATE TABLE projectdatasetlink (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    version integer,
    child bigint NOT NULL,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    parent bigint NOT NULL,
    UNIQUE (parent, child, owner_id),
    UNIQUE (external_id)
);

CREATE TABLE screen (
    id bigint NOT NULL PRIMARY KEY,
    description text,
    permissions bigint NOT NULL,
    name text NOT NULL,
    protocoldescription text,
    protocolidentifier varchar(255),
    reagentsetdescription text,
    reagentsetidentifier varchar(255),
    "type" varchar(255),
    version integer,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    UNIQUE (external_id)
);

CREATE TABLE screenannotationlink (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    version integer,
    child bigint NOT NULL,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    parent bigint NOT NULL,
    UNIQUE (parent, child, owner_id),
    UNIQUE (external_id)
);

CREATE TABLE screenplatelink (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    version integer,
    child bigint NOT NULL,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    parent bigint NOT NULL,
    UNIQUE (parent, child, owner_id),
    UNIQUE (external_id)
);

CREATE TABLE session (
    id bigint NOT NULL PRIMARY KEY,
    closed timestamp,
    defaulteventtype varchar(255) NOT NULL,
    permissions bigint NOT NULL,
    message text,
    started timestamp NOT NULL,
    timetoidle bigint NOT NULL,
    timetolive bigint NOT NULL,
    useragent varchar(255),
    userip varchar(45),
    uuid varchar(255) NOT NULL,
    version integer,
    external_id bigint,
    node bigint NOT NULL,
    owner bigint NOT NULL,
    sudoer bigint,
    UNIQUE (uuid),
    UNIQUE (external_id)
);

CREATE TABLE thumbnail (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    mimetype varchar(255) NOT NULL,
    ref varchar(255),
    sizex integer NOT NULL,
    sizey integer NOT NULL,
    version integer,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    pixels bigint NOT NULL,
    UNIQUE (external_id)
);

CREATE TABLE well (
    id bigint NOT NULL PRIMARY KEY,
    alpha integer,
    blue integer,
    "column" integer,
    permissions bigint NOT NULL,
    externaldescription text,
    externalidentifier varchar(255),
    green integer,
    red integer,
    "row" integer,
    status varchar(255),
    "type" varchar(255),
    version integer,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    plate bigint NOT NULL,
    UNIQUE (external_id)
);

CREATE TABLE wellsample (
    id bigint NOT NULL PRIMARY KEY,
    permissions bigint NOT NULL,
    posxunit unitslength,
    posx double precision,
    posyunit unitslength,
    posy double precision,
    timepoint timestamp,
    version integer,
    creation_id bigint NOT NULL,
    external_id bigint,
    group_id bigint NOT NULL,
    owner_id bigint NOT NULL,
    update_id bigint NOT NULL,
    image bigint NOT NULL,
    plateacquisition bigint,
    well bigint NOT NULL,
    well_index integer NOT NULL,
    UNIQUE (well, well_index),
    UNIQUE (external_id)
);


-- Foreign keys -----------------------------------------------------------------------------------------------

ALTER TABLE annotation
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY ("file") REFERENCES originalfile;
ALTER TABLE annotation_mapvalue
    ADD FOREIGN KEY (annotation_id) REFERENCES annotation;
ALTER TABLE checksumalgorithm
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo;
ALTER TABLE dataset
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event;
ALTER TABLE datasetannotationlink
    ADD FOREIGN KEY (child) REFERENCES annotation,
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (parent) REFERENCES dataset;
ALTER TABLE datasetimagelink
    ADD FOREIGN KEY (child) REFERENCES image,
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (parent) REFERENCES dataset;
ALTER TABLE dbpatch
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo;
ALTER TABLE dimensionorder
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo;
ALTER TABLE event
    ADD FOREIGN KEY (containingevent) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (experimenter) REFERENCES experimenter,
    ADD FOREIGN KEY (experimentergroup) REFERENCES experimentergroup,
    ADD FOREIGN KEY ("session") REFERENCES session,
    ADD FOREIGN KEY ("type") REFERENCES eventtype;
ALTER TABLE eventlog
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (event) REFERENCES event;
ALTER TABLE eventtype
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo;
ALTER TABLE experimenter
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo;
ALTER TABLE experimentergroup
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo;
ALTER TABLE externalinfo
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter;
ALTER TABLE fileset
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event;
ALTER TABLE filesetannotationlink
    ADD FOREIGN KEY (child) REFERENCES annotation,
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (parent) REFERENCES fileset;
ALTER TABLE filesetentry
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (fileset) REFERENCES fileset,
    ADD FOREIGN KEY (originalfile) REFERENCES originalfile;
ALTER TABLE filesetjoblink
    ADD FOREIGN KEY (child) REFERENCES job,
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (parent) REFERENCES fileset;
ALTER TABLE format
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo;
ALTER TABLE groupexperimentermap
    ADD FOREIGN KEY (child) REFERENCES experimenter,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (parent) REFERENCES experimentergroup;
ALTER TABLE image
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (fileset) REFERENCES fileset,
    ADD FOREIGN KEY ("format") REFERENCES format;
ALTER TABLE imageannotationlink
    ADD FOREIGN KEY (child) REFERENCES annotation,
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (parent) REFERENCES image;
ALTER TABLE job
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event;
ALTER TABLE joboriginalfilelink
    ADD FOREIGN KEY (child) REFERENCES originalfile,
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (parent) REFERENCES job;
ALTER TABLE namespace
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo;
ALTER TABLE node
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo;
ALTER TABLE originalfile
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (hasher) REFERENCES checksumalgorithm;
ALTER TABLE originalfileannotationlink
    ADD FOREIGN KEY (child) REFERENCES annotation,
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (parent) REFERENCES originalfile;
ALTER TABLE pixels
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (dimensionorder) REFERENCES dimensionorder,
    ADD FOREIGN KEY (image) REFERENCES image,
    ADD FOREIGN KEY (pixelstype) REFERENCES pixelstype,
    ADD FOREIGN KEY (relatedto) REFERENCES pixels;
ALTER TABLE pixelsoriginalfilemap
    ADD FOREIGN KEY (child) REFERENCES pixels,
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (parent) REFERENCES originalfile;
ALTER TABLE pixelstype
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo;
ALTER TABLE plate
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event;
ALTER TABLE plateacquisition
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (plate) REFERENCES plate;
ALTER TABLE plateannotationlink
    ADD FOREIGN KEY (child) REFERENCES annotation,
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (parent) REFERENCES plate;
ALTER TABLE project
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event;
ALTER TABLE projectannotationlink
    ADD FOREIGN KEY (child) REFERENCES annotation,
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (parent) REFERENCES project;
ALTER TABLE projectdatasetlink
    ADD FOREIGN KEY (child) REFERENCES dataset,
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (parent) REFERENCES project;
ALTER TABLE screen
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event;
ALTER TABLE screenannotationlink
    ADD FOREIGN KEY (child) REFERENCES annotation,
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (parent) REFERENCES screen;
ALTER TABLE screenplatelink
    ADD FOREIGN KEY (child) REFERENCES plate,
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (parent) REFERENCES screen;
ALTER TABLE session
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (node) REFERENCES node,
    ADD FOREIGN KEY (owner) REFERENCES experimenter,
    ADD FOREIGN KEY (sudoer) REFERENCES experimenter;
ALTER TABLE thumbnail
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (pixels) REFERENCES pixels;
ALTER TABLE well
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (plate) REFERENCES plate;
ALTER TABLE wellsample
    ADD FOREIGN KEY (creation_id) REFERENCES event,
    ADD FOREIGN KEY (external_id) REFERENCES externalinfo,
    ADD FOREIGN KEY (group_id) REFERENCES experimentergroup,
    ADD FOREIGN KEY (owner_id) REFERENCES experimenter,
    ADD FOREIGN KEY (update_id) REFERENCES event,
    ADD FOREIGN KEY (image) REFERENCES image,
    ADD FOREIGN KEY (plateacquisition) REFERENCES plateacquisition,
    ADD FOREIGN KEY (well) REFERENCES well;


-- Indexes ----------------------------------------------------------------------------------------------------

CREATE INDEX i_annotation_creation ON annotation (creation_id);
CREATE INDEX i_annotation_group ON annotation (group_id);
CREATE INDEX i_annotation_owner ON annotation (owner_id);
CREATE INDEX i_annotation_update ON annotation (update_id);
CREATE INDEX i_annotation_file ON annotation ("file");
CREATE INDEX i_dataset_creation ON dataset (creation_id);
CREATE INDEX i_dataset_group ON dataset (group_id);
CREATE INDEX i_dataset_owner ON dataset (owner_id);
CREATE INDEX i_dataset_update ON dataset (update_id);
CREATE INDEX i_datasetannotationlink_child ON datasetannotationlink (child);
CREATE INDEX i_datasetannotationlink_creation ON datasetannotationlink (creation_id);
CREATE INDEX i_datasetannotationlink_group ON datasetannotationlink (group_id);
CREATE INDEX i_datasetannotationlink_owner ON datasetannotationlink (owner_id);
CREATE INDEX i_datasetannotationlink_update ON datasetannotationlink (update_id);
CREATE INDEX i_datasetannotationlink_parent ON datasetannotationlink (parent);
CREATE INDEX i_datasetimagelink_child ON datasetimagelink (child);
CREATE INDEX i_datasetimagelink_creation ON datasetimagelink (creation_id);
CREATE INDEX i_datasetimagelink_group ON datasetimagelink (group_id);
CREATE INDEX i_datasetimagelink_owner ON datasetimagelink (owner_id);
CREATE INDEX i_datasetimagelink_update ON datasetimagelink (update_id);
CREATE INDEX i_datasetimagelink_parent ON datasetimagelink (parent);
CREATE INDEX i_event_containingevent ON event (containingevent);
CREATE INDEX i_event_experimenter ON event (experimenter);
CREATE INDEX i_event_experimentergroup ON event (experimentergroup);
CREATE INDEX i_event_session ON event ("session");
CREATE INDEX i_event_type ON event ("type");
CREATE INDEX i_eventlog_event ON eventlog (event);
CREATE INDEX i_externalinfo_creation ON externalinfo (creation_id);
CREATE INDEX i_externalinfo_group ON externalinfo (group_id);
CREATE INDEX i_externalinfo_owner ON externalinfo (owner_id);
CREATE INDEX i_fileset_creation ON fileset (creation_id);
CREATE INDEX i_fileset_group ON fileset (group_id);
CREATE INDEX i_fileset_owner ON fileset (owner_id);
CREATE INDEX i_fileset_update ON fileset (update_id);
CREATE INDEX i_filesetannotationlink_child ON filesetannotationlink (child);
CREATE INDEX i_filesetannotationlink_creation ON filesetannotationlink (creation_id);
CREATE INDEX i_filesetannotationlink_group ON filesetannotationlink (group_id);
CREATE INDEX i_filesetannotationlink_owner ON filesetannotationlink (owner_id);
CREATE INDEX i_filesetannotationlink_update ON filesetannotationlink (update_id);
CREATE INDEX i_filesetannotationlink_parent ON filesetannotationlink (parent);
CREATE INDEX i_filesetentry_creation ON filesetentry (creation_id);
CREATE INDEX i_filesetentry_group ON filesetentry (group_id);
CREATE INDEX i_filesetentry_owner ON filesetentry (owner_id);
CREATE INDEX i_filesetentry_update ON filesetentry (update_id);
CREATE INDEX i_filesetentry_fileset ON filesetentry (fileset);
CREATE INDEX i_filesetentry_originalfile ON filesetentry (originalfile);
CREATE INDEX i_filesetjoblink_child ON filesetjoblink (child);
CREATE INDEX i_filesetjoblink_creation ON filesetjoblink (creation_id);
CREATE INDEX i_filesetjoblink_group ON filesetjoblink (group_id);
CREATE INDEX i_filesetjoblink_owner ON filesetjoblink (owner_id);
CREATE INDEX i_filesetjoblink_update ON filesetjoblink (update_id);
CREATE INDEX i_filesetjoblink_parent ON filesetjoblink (parent);
CREATE INDEX i_groupexperimentermap_child ON groupexperimentermap (child);
CREATE INDEX i_groupexperimentermap_parent ON groupexperimentermap (parent);
CREATE INDEX i_image_creation ON image (creation_id);
CREATE INDEX i_image_group ON image (group_id);
CREATE INDEX i_image_owner ON image (owner_id);
CREATE INDEX i_image_update ON image (update_id);
CREATE INDEX i_image_fileset ON image (fileset);
CREATE INDEX i_image_format ON image ("format");
CREATE INDEX i_imageannotationlink_child ON imageannotationlink (child);
CREATE INDEX i_imageannotationlink_creation ON imageannotationlink (creation_id);
CREATE INDEX i_imageannotationlink_group ON imageannotationlink (group_id);
CREATE INDEX i_imageannotationlink_owner ON imageannotationlink (owner_id);
CREATE INDEX i_imageannotationlink_update ON imageannotationlink (update_id);
CREATE INDEX i_imageannotationlink_parent ON imageannotationlink (parent);
CREATE INDEX i_job_creation ON job (creation_id);
CREATE INDEX i_job_group ON job (group_id);
CREATE INDEX i_job_owner ON job (owner_id);
CREATE INDEX i_job_update ON job (update_id);
CREATE INDEX i_joboriginalfilelink_child ON joboriginalfilelink (child);
CREATE INDEX i_joboriginalfilelink_creation ON joboriginalfilelink (creation_id);
CREATE INDEX i_joboriginalfilelink_group ON joboriginalfilelink (group_id);
CREATE INDEX i_joboriginalfilelink_owner ON joboriginalfilelink (owner_id);
CREATE INDEX i_joboriginalfilelink_update ON joboriginalfilelink (update_id);
CREATE INDEX i_joboriginalfilelink_parent ON joboriginalfilelink (parent);
CREATE INDEX i_originalfile_creation ON originalfile (creation_id);
CREATE INDEX i_originalfile_group ON originalfile (group_id);
CREATE INDEX i_originalfile_owner ON originalfile (owner_id);
CREATE INDEX i_originalfile_update ON originalfile (update_id);
CREATE INDEX i_originalfile_hasher ON originalfile (hasher);
CREATE INDEX i_originalfileannotationlink_child ON originalfileannotationlink (child);
CREATE INDEX i_originalfileannotationlink_creation ON originalfileannotationlink (creation_id);
CREATE INDEX i_originalfileannotationlink_group ON originalfileannotationlink (group_id);
CREATE INDEX i_originalfileannotationlink_owner ON originalfileannotationlink (owner_id);
CREATE INDEX i_originalfileannotationlink_update ON originalfileannotationlink (update_id);
CREATE INDEX i_originalfileannotationlink_parent ON originalfileannotationlink (parent);
CREATE INDEX i_pixels_creation ON pixels (creation_id);
CREATE INDEX i_pixels_group ON pixels (group_id);
CREATE INDEX i_pixels_owner ON pixels (owner_id);
CREATE INDEX i_pixels_update ON pixels (update_id);
CREATE INDEX i_pixels_dimensionorder ON pixels (dimensionorder);
CREATE INDEX i_pixels_image ON pixels (image);
CREATE INDEX i_pixels_pixelstype ON pixels (pixelstype);
CREATE INDEX i_pixels_relatedto ON pixels (relatedto);
CREATE INDEX i_pixelsoriginalfilemap_child ON pixelsoriginalfilemap (child);
CREATE INDEX i_pixelsoriginalfilemap_creation ON pixelsoriginalfilemap (creation_id);
CREATE INDEX i_pixelsoriginalfilemap_group ON pixelsoriginalfilemap (group_id);
CREATE INDEX i_pixelsoriginalfilemap_owner ON pixelsoriginalfilemap (owner_id);
CREATE INDEX i_pixelsoriginalfilemap_update ON pixelsoriginalfilemap (update_id);
CREATE INDEX i_pixelsoriginalfilemap_parent ON pixelsoriginalfilemap (parent);
CREATE INDEX i_plate_creation ON plate (creation_id);
CREATE INDEX i_plate_group ON plate (group_id);
CREATE INDEX i_plate_owner ON plate (owner_id);
CREATE INDEX i_plate_update ON plate (update_id);
CREATE INDEX i_plateacquisition_creation ON plateacquisition (creation_id);
CREATE INDEX i_plateacquisition_group ON plateacquisition (group_id);
CREATE INDEX i_plateacquisition_owner ON plateacquisition (owner_id);
CREATE INDEX i_plateacquisition_update ON plateacquisition (update_id);
CREATE INDEX i_plateacquisition_plate ON plateacquisition (plate);
CREATE INDEX i_plateannotationlink_child ON plateannotationlink (child);
CREATE INDEX i_plateannotationlink_creation ON plateannotationlink (creation_id);
CREATE INDEX i_plateannotationlink_group ON plateannotationlink (group_id);
CREATE INDEX i_plateannotationlink_owner ON plateannotationlink (owner_id);
CREATE INDEX i_plateannotationlink_update ON plateannotationlink (update_id);
CREATE INDEX i_plateannotationlink_parent ON plateannotationlink (parent);
CREATE INDEX i_project_creation ON project (creation_id);
CREATE INDEX i_project_group ON project (group_id);
CREATE INDEX i_project_owner ON project (owner_id);
CREATE INDEX i_project_update ON project (update_id);
CREATE INDEX i_projectannotationlink_child ON projectannotationlink (child);
CREATE INDEX i_projectannotationlink_creation ON projectannotationlink (creation_id);
CREATE INDEX i_projectannotationlink_group ON projectannotationlink (group_id);
CREATE INDEX i_projectannotationlink_owner ON projectannotationlink (owner_id);
CREATE INDEX i_projectannotationlink_update ON projectannotationlink (update_id);
CREATE INDEX i_projectannotationlink_parent ON projectannotationlink (parent);
CREATE INDEX i_projectdatasetlink_child ON projectdatasetlink (child);
CREATE INDEX i_projectdatasetlink_creation ON projectdatasetlink (creation_id);
CREATE INDEX i_projectdatasetlink_group ON projectdatasetlink (group_id);
CREATE INDEX i_projectdatasetlink_owner ON projectdatasetlink (owner_id);
CREATE INDEX i_projectdatasetlink_update ON projectdatasetlink (update_id);
CREATE INDEX i_projectdatasetlink_parent ON projectdatasetlink (parent);
CREATE INDEX i_screen_creation ON screen (creation_id);
CREATE INDEX i_screen_group ON screen (group_id);
CREATE INDEX i_screen_owner ON screen (owner_id);
CREATE INDEX i_screen_update ON screen (update_id);
CREATE INDEX i_screenannotationlink_child ON screenannotationlink (child);
CREATE INDEX i_screenannotationlink_creation ON screenannotationlink (creation_id);
CREATE INDEX i_screenannotationlink_group ON screenannotationlink (group_id);
CREATE INDEX i_screenannotationlink_owner ON screenannotationlink (owner_id);
CREATE INDEX i_screenannotationlink_update ON screenannotationlink (update_id);
CREATE INDEX i_screenannotationlink_parent ON screenannotationlink (parent);
CREATE INDEX i_screenplatelink_child ON screenplatelink (child);
CREATE INDEX i_screenplatelink_creation ON screenplatelink (creation_id);
CREATE INDEX i_screenplatelink_group ON screenplatelink (group_id);
CREATE INDEX i_screenplatelink_owner ON screenplatelink (owner_id);
CREATE INDEX i_screenplatelink_update ON screenplatelink (update_id);
CREATE INDEX i_screenplatelink_parent ON screenplatelink (parent);
CREATE INDEX i_session_node ON session (node);
CREATE INDEX i_session_owner ON session (owner);
CREATE INDEX i_session_sudoer ON session (sudoer);
CREATE INDEX i_thumbnail_creation ON thumbnail (creation_id);
CREATE INDEX i_thumbnail_group ON thumbnail (group_id);
CREATE INDEX i_thumbnail_owner ON thumbnail (owner_id);
CREATE INDEX i_thumbnail_update ON thumbnail (update_id);
CREATE INDEX i_thumbnail_pixels ON thumbnail (pixels);
CREATE INDEX i_well_creation ON well (creation_id);
CREATE INDEX i_well_group ON well (group_id);
CREATE INDEX i_well_owner ON well (owner_id);
CREATE INDEX i_well_update ON well (update_id);
CREATE INDEX i_well_plate ON well (plate);
CREATE INDEX i_wellsample_creation ON wellsample (creation_id);
CREATE INDEX i_wellsample_group ON wellsample (group_id);
CREATE INDEX i_wellsample_owner ON wellsample (owner_id);
CREATE INDEX i_wellsample_update ON wellsample (update_id);
CREATE INDEX i_wellsample_image ON wellsample (image);
CREATE INDEX i_wellsample_plateacquisition ON wellsample (plateacquisition);
CREATE INDEX i_wellsample_well ON wellsample (well);
CREATE INDEX i_annotation_ns ON annotation (ns);
CREATE UNIQUE INDEX originalfile_repo_path_index
    ON originalfile (repo, string_to_array('/' || path || name || '/', '/'));


-- Sequences --------------------------------------------------------------------------------------------------
-- All kinds of annotations share seq_annotation, all kinds of jobs seq_job.

CREATE SEQUENCE seq_annotation;
CREATE SEQUENCE seq_checksumalgorithm;
CREATE SEQUENCE seq_dataset;
CREATE SEQUENCE seq_datasetannotationlink;
CREATE SEQUENCE seq_datasetimagelink;
CREATE SEQUENCE seq_dbpatch;
CREATE SEQUENCE seq_dimensionorder;
CREATE SEQUENCE seq_event;
CREATE SEQUENCE seq_eventlog;
CREATE SEQUENCE seq_eventtype;
CREATE SEQUENCE seq_experimenter;
CREATE SEQUENCE seq_experimentergroup;
CREATE SEQUENCE seq_externalinfo;
CREATE SEQUENCE seq_fileset;
CREATE SEQUENCE seq_filesetannotationlink;
CREATE SEQUENCE seq_filesetentry;
CREATE SEQUENCE seq_filesetjoblink;
CREATE SEQUENCE seq_format;
CREATE SEQUENCE seq_groupexperimentermap;
CREATE SEQUENCE seq_image;
CREATE SEQUENCE seq_imageannotationlink;
CREATE SEQUENCE seq_job;
CREATE SEQUENCE seq_joboriginalfilelink;
CREATE SEQUENCE seq_namespace;
CREATE SEQUENCE seq_node;
CREATE SEQUENCE seq_originalfile;
CREATE SEQUENCE seq_originalfileannotationlink;
CREATE SEQUENCE seq_pixels;
CREATE SEQUENCE seq_pixelsoriginalfilemap;
CREATE SEQUENCE seq_pixelstype;
CREATE SEQUENCE seq_plate;
CREATE SEQUENCE seq_plateacquisition;
CREATE SEQUENCE seq_plateannotationlink;
CREATE SEQUENCE seq_project;
CREATE SEQUENCE seq_projectannotationlink;
CREATE SEQUENCE seq_projectdatasetlink;
CREATE SEQUENCE seq_screen;
CREATE SEQUENCE seq_screenannotationlink;
CREATE SEQUENCE seq_screenplatelink;
CREATE SEQUENCE seq_session;
CREATE SEQUENCE seq_thumbnail;
CREATE SEQUENCE seq_well;
CREATE SEQUENCE seq_wellsample;
INSERT INTO _lock_ids (name) SELECT sequencename FROM pg_sequences WHERE sequencename LIKE 'seq\_%' ORDER BY 1;


-- Ids --------------------------------------------------------------------------------------------------------
-- A running server takes 50 ids at a time and hands them out later, so ids come from here and never from
-- max(id) + 1.

CREATE FUNCTION ome_nextval(seq text, n int) RETURNS bigint LANGUAGE plpgsql AS $$
-- Takes n values at once and returns the last of them: the caller owns (result - n, result].
DECLARE
    lock_id int;
    last bigint;
BEGIN
    SELECT id INTO lock_id FROM _lock_ids WHERE name = seq;
    IF lock_id IS NULL THEN
        INSERT INTO _lock_ids (name) VALUES (seq) ON CONFLICT (name) DO UPDATE SET name = excluded.name
        RETURNING id INTO lock_id;
    END IF;
    PERFORM pg_advisory_lock(1, lock_id);
    BEGIN
        IF n < 1 THEN
            RAISE EXCEPTION 'ome_nextval: % values wanted', n;
        END IF;
        SELECT max(v) INTO last FROM (SELECT nextval(seq::regclass) AS v FROM generate_series(1, n)) AS taken;
    EXCEPTION WHEN OTHERS THEN
        PERFORM pg_advisory_unlock(1, lock_id);
        RAISE;
    END;
    PERFORM pg_advisory_unlock(1, lock_id);
    RETURN last;
END $$;

CREATE FUNCTION ome_nextval(seq text) RETURNS bigint LANGUAGE sql AS $$
    SELECT ome_nextval(seq, 1);
$$;


-- Who is writing ---------------------------------------------------------------------------------------------

CREATE FUNCTION _prepare_session(event_id bigint, user_id bigint, group_id bigint) RETURNS void
LANGUAGE plpgsql AS $$
-- Tells the triggers of this connection which event the coming changes belong to.
BEGIN
    IF to_regclass('pg_temp._current_session') IS NULL THEN
        CREATE TEMPORARY TABLE _current_session (event_id bigint, user_id bigint, group_id bigint)
        ON COMMIT DELETE ROWS;
    END IF;
    DELETE FROM pg_temp._current_session;
    INSERT INTO pg_temp._current_session VALUES (event_id, user_id, group_id);
END $$;

CREATE FUNCTION _current_or_new_event() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    current_event bigint;
BEGIN
    IF to_regclass('pg_temp._current_session') IS NOT NULL THEN
        SELECT s.event_id INTO current_event FROM pg_temp._current_session AS s;
    END IF;
    IF current_event IS NULL THEN
        current_event := ome_nextval('seq_event');
        INSERT INTO event (id, permissions, status, time, experimenter, experimentergroup, session, type)
        VALUES (current_event, -52, 'TRIGGERED', clock_timestamp(), 0, 0, 0, 0);
    END IF;
    RETURN current_event;
END $$;


-- Triggers ---------------------------------------------------------------------------------------------------

CREATE FUNCTION add_to_namespace() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.ns IS NOT NULL AND NOT EXISTS (SELECT FROM namespace WHERE name = NEW.ns) THEN
        INSERT INTO namespace (id, permissions, name, version)
        VALUES (ome_nextval('seq_namespace'), -52, NEW.ns, 0) ON CONFLICT (name) DO NOTHING;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER add_to_namespace AFTER INSERT OR UPDATE ON annotation
    FOR EACH ROW EXECUTE FUNCTION add_to_namespace();

-- The server's indexer turns these rows into REINDEX entries of the event log.
CREATE FUNCTION annotation_link_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO _reindexing_required (event_id, entity_type, entity_id)
    VALUES (_current_or_new_event(), TG_ARGV[0], NEW.parent);
    RETURN NULL;
END $$;
CREATE TRIGGER dataset_annotation_link_insert_trigger AFTER INSERT ON datasetannotationlink
    FOR EACH ROW EXECUTE FUNCTION annotation_link_insert('ome.model.containers.Dataset');
CREATE TRIGGER fileset_annotation_link_insert_trigger AFTER INSERT ON filesetannotationlink
    FOR EACH ROW EXECUTE FUNCTION annotation_link_insert('ome.model.fs.Fileset');
CREATE TRIGGER image_annotation_link_insert_trigger AFTER INSERT ON imageannotationlink
    FOR EACH ROW EXECUTE FUNCTION annotation_link_insert('ome.model.core.Image');
CREATE TRIGGER originalfile_annotation_link_insert_trigger AFTER INSERT ON originalfileannotationlink
    FOR EACH ROW EXECUTE FUNCTION annotation_link_insert('ome.model.core.OriginalFile');
CREATE TRIGGER plate_annotation_link_insert_trigger AFTER INSERT ON plateannotationlink
    FOR EACH ROW EXECUTE FUNCTION annotation_link_insert('ome.model.screen.Plate');
CREATE TRIGGER project_annotation_link_insert_trigger AFTER INSERT ON projectannotationlink
    FOR EACH ROW EXECUTE FUNCTION annotation_link_insert('ome.model.containers.Project');
CREATE TRIGGER screen_annotation_link_insert_trigger AFTER INSERT ON screenannotationlink
    FOR EACH ROW EXECUTE FUNCTION annotation_link_insert('ome.model.screen.Screen');

-- Map values go with their annotation.
CREATE FUNCTION annotation_mapvalue_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM annotation_mapvalue WHERE annotation_id = OLD.id;
    RETURN OLD;
END $$;
CREATE TRIGGER annotation_mapvalue_delete BEFORE DELETE ON annotation
    FOR EACH ROW EXECUTE FUNCTION annotation_mapvalue_delete();

CREATE FUNCTION image_series_default_zero() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.series := coalesce(NEW.series::int, 0);
    RETURN NEW;
END $$;
CREATE TRIGGER image_series_default_zero BEFORE INSERT OR UPDATE ON image
    FOR EACH ROW EXECUTE FUNCTION image_series_default_zero();

-- While a server is up (node.down is null), only it may put rows into a repository: it proves itself by
-- prefixing the name with its node's uuid, which is taken off here.
CREATE FUNCTION _protect_originalfile_repo() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    secret text;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.repo IS NOT DISTINCT FROM OLD.repo THEN
            RETURN NEW;
        END IF;
    ELSIF NEW.repo IS NULL THEN
        RETURN NEW;
    END IF;
    IF NOT EXISTS (SELECT FROM node WHERE down IS NULL) THEN
        RETURN NEW;
    END IF;
    SELECT uuid INTO secret FROM node WHERE down IS NULL AND starts_with(NEW.name, uuid) LIMIT 1;
    IF secret IS NULL THEN
        RAISE EXCEPTION 'originalfile %: the repository may only be set by a running server', NEW.id;
    END IF;
    NEW.name := substr(NEW.name, length(secret) + 1);
    RETURN NEW;
END $$;
CREATE TRIGGER _protect_originalfile_repo_insert BEFORE INSERT ON originalfile
    FOR EACH ROW EXECUTE FUNCTION _protect_originalfile_repo();
CREATE TRIGGER _protect_originalfile_repo_update BEFORE UPDATE ON originalfile
    FOR EACH ROW EXECUTE FUNCTION _protect_originalfile_repo();

-- A row that is a directory or a repository stays one, and no other row becomes one.
CREATE FUNCTION _fs_protected_mimetype() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    protected CONSTANT text[] := ARRAY['Directory', 'Repository'];
BEGIN
    IF NEW.mimetype IS DISTINCT FROM OLD.mimetype
       AND (NEW.mimetype = ANY (protected) OR OLD.mimetype = ANY (protected)) THEN
        RAISE EXCEPTION 'originalfile %: mimetype % cannot become %', NEW.id, OLD.mimetype, NEW.mimetype;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER _fs_protected_mimetype BEFORE UPDATE ON originalfile
    FOR EACH ROW EXECUTE FUNCTION _fs_protected_mimetype();


-- What every OMERO database begins with ----------------------------------------------------------------------

INSERT INTO eventtype (id, permissions, value)
SELECT i - 1, -52, v FROM unnest(ARRAY['Bootstrap', 'Import', 'Internal', 'Shoola', 'User', 'Task', 'Test',
    'Processing', 'FullText', 'Sessions']) WITH ORDINALITY AS t (v, i);
INSERT INTO checksumalgorithm (id, permissions, value)
SELECT i, -52, v FROM unnest(ARRAY['Adler-32', 'CRC-32', 'MD5-128', 'Murmur3-32', 'Murmur3-128', 'SHA1-160',
    'File-Size-64']) WITH ORDINALITY AS t (v, i);
INSERT INTO dimensionorder (id, permissions, value)
SELECT i, -52, v FROM unnest(ARRAY['XYZCT', 'XYZTC', 'XYCZT', 'XYCTZ', 'XYTCZ', 'XYTZC'])
    WITH ORDINALITY AS t (v, i);
INSERT INTO pixelstype (id, permissions, value, bitsize)
SELECT i, -52, v, b FROM unnest(
    ARRAY['bit', 'int8', 'int16', 'int32', 'uint8', 'uint16', 'uint32', 'float', 'double', 'complex',
        'double-complex'],
    ARRAY[1, 8, 16, 32, 8, 16, 32, 32, 64, 64, 128]) WITH ORDINALITY AS t (v, b, i);
INSERT INTO format (id, permissions, value)
SELECT i, -52, v FROM unnest(ARRAY['OMETIFF', 'Companion/OMETIFF', 'TIFF', 'ICS', 'DICOM', 'Deltavision', 'LIF',
    'CZI', 'MetaMorph', 'FakeReader']) WITH ORDINALITY AS t (v, i);

INSERT INTO experimentergroup (id, permissions, ldap, name, version)
VALUES (0, -52, false, 'system', 0), (1, -52, false, 'user', 0), (2, -52, false, 'guest', 0);
INSERT INTO experimenter (id, permissions, firstname, lastname, omename, ldap, version)
VALUES (0, 0, 'root', 'root', 'root', false, 0), (1, 0, 'Guest', 'Account', 'guest', false, 0);
INSERT INTO groupexperimentermap (id, permissions, owner, version, parent, child, child_index)
VALUES (0, -52, true, 0, 0, 0, 0), (1, -52, false, 0, 1, 0, 1), (2, -52, false, 0, 2, 1, 0);

INSERT INTO node (id, permissions, uuid, conn, up, down, version)
VALUES (0, -52, '000000000000000000000000000000000000', 'unknown', now(), now(), 0);
INSERT INTO session (id, permissions, timetoidle, timetolive, started, closed, defaulteventtype, uuid, owner, node,
    version)
VALUES (0, -52, 0, 0, now(), now(), 'BOOTSTRAP', '0000', 0, 0, 0);
INSERT INTO event (id, permissions, status, time, experimenter, experimentergroup, session, type)
VALUES (0, -52, 'BOOTSTRAP', now(), 0, 0, 0, 0);

INSERT INTO dbpatch (id, permissions, currentversion, currentpatch, previousversion, previouspatch, finished,
    message)
VALUES (1, -52, 'OMERO5.4', 0, 'OMERO5.4', 0, clock_timestamp(), 'Database ready.');
INSERT INTO configuration (name, value) VALUES ('omero.db.uuid', gen_random_uuid()::text);

-- The rows above took ids by hand; the sequences go on after them.
DO $$
DECLARE
    t text;
    highest bigint;
BEGIN
    FOREACH t IN ARRAY ARRAY['eventtype', 'checksumalgorithm', 'dimensionorder', 'pixelstype', 'format',
        'experimentergroup', 'experimenter', 'groupexperimentermap', 'node', 'session', 'event', 'dbpatch'] LOOP
        EXECUTE format('SELECT max(id) FROM %I', t) INTO highest;
        PERFORM setval('seq_' || t, greatest(highest, 1), highest >= 1);
    END LOOP;
END $$;
